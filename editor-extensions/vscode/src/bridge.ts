/** The language client: starts `atlasd-lsp` and turns its answers into inline completions. */

import * as vscode from "vscode";
import {
  CloseAction,
  LanguageClient,
  type LanguageClientOptions,
  RevealOutputChannelOn,
  type ServerOptions,
} from "vscode-languageclient/node";

import { bridgeOptions, readSettings, type Settings, wanted } from "./settings";
import type { DaemonStatus } from "./status";

/** The answer to a bridge that ends after another was started instead: nobody needs to know. */
const GIVEN_UP = { action: CloseAction.DoNotRestart, handled: true };

export function settingsFor(scope?: vscode.ConfigurationScope): Settings {
  const configuration = vscode.workspace.getConfiguration("atlasd", scope ?? null);
  return readSettings((key) => configuration.get(key));
}

export class Bridge implements vscode.Disposable {
  /** Switched by the toggle command, for this window only. */
  enabled = true;
  readonly log = vscode.window.createOutputChannel("atlasd", { log: true });
  private client: LanguageClient | undefined;

  async start(): Promise<void> {
    const settings = settingsFor();
    const [command, ...args] = settings.command;
    if (!command) {
      throw new Error("The setting atlasd.command is empty.");
    }
    const server: ServerOptions = { command, args };
    const client: LanguageClient = new LanguageClient("atlasd", "atlasd", server, {
      ...this.options(settings),
      // Whoever starts says what went wrong.
      initializationFailedHandler: () => false,
      errorHandler: {
        error: (error, message, count) => usual.error(error, message, count),
        closed: () => (this.client === client ? usual.closed() : GIVEN_UP),
      },
    });
    const usual = client.createDefaultErrorHandler();
    this.client = client;
    await client.start();
  }

  async restart(): Promise<void> {
    await this.stop();
    // Unless a restart that was asked for meanwhile has.
    if (!this.client) {
      await this.start();
    }
  }

  async stop(): Promise<void> {
    const client = this.client;
    this.client = undefined;
    // One that is starting cannot be stopped: the client ends its process in two seconds.
    await client?.dispose().catch(() => undefined);
  }

  /** Run one of the bridge's commands. */
  async execute<T>(command: string, ...commandArguments: unknown[]): Promise<T> {
    if (!this.client?.isRunning()) {
      throw new Error("The atlasd bridge is not running; see the log.");
    }
    return this.client.sendRequest<T>("workspace/executeCommand", {
      command,
      arguments: commandArguments,
    });
  }

  /** The daemon's status; never throws, since it feeds a status bar. */
  async status(): Promise<DaemonStatus> {
    try {
      return await this.execute<DaemonStatus>("atlasd.status");
    } catch (error) {
      return { state: "stopped", error: error instanceof Error ? error.message : String(error) };
    }
  }

  onNotification(method: string, handler: (params: unknown) => void): vscode.Disposable {
    return this.client?.onNotification(method, handler) ?? new vscode.Disposable(() => undefined);
  }

  /** Tell the bridge that settings or trust changed. */
  async configure(): Promise<void> {
    if (this.client?.isRunning()) {
      const atlasd = bridgeOptions(settingsFor(), vscode.workspace.isTrusted);
      await this.client.sendNotification("workspace/didChangeConfiguration", {
        settings: { atlasd },
      });
    }
  }

  private options(settings: Settings): LanguageClientOptions {
    return {
      documentSelector: [{ scheme: "file" }, { scheme: "untitled" }, { scheme: "vscode-vfs" }],
      initializationOptions: bridgeOptions(settings, vscode.workspace.isTrusted),
      outputChannel: this.log,
      // An assistant that cannot be reached must not take the screen.
      revealOutputChannelOn: RevealOutputChannelOn.Never,
      middleware: {
        provideInlineCompletionItems: (document, position, context, token, next) => {
          const invoked = context.triggerKind === vscode.InlineCompletionTriggerKind.Invoke;
          const asked = wanted(settingsFor(document), document.languageId, invoked);
          return this.enabled && asked ? next(document, position, context, token) : [];
        },
      },
    };
  }

  dispose(): void {
    void this.stop();
    this.log.dispose();
  }
}
