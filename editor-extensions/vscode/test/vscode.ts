/** Stands in for the editor's API, as far as the extension and its language client use it: what is
 * shown is kept, settings can be changed, everything else is there and does nothing. Import it
 * before what requires "vscode". */

import Module from "node:module";

type Listener = (event: unknown) => unknown;
type Loaded = (request: string, ...rest: unknown[]) => unknown;

class Disposable {
  constructor(private readonly end: () => unknown = () => undefined) {}
  dispose(): void {
    this.end();
  }
}

class Emitter {
  private readonly listeners = new Set<Listener>();
  readonly event = (listener: Listener): Disposable => {
    this.listeners.add(listener);
    return new Disposable(() => this.listeners.delete(listener));
  };
  dispose(): void {
    this.listeners.clear();
  }
  fire(event: unknown): Promise<unknown> {
    return Promise.all([...this.listeners].map((listener) => listener(event)));
  }
}

/** A class of the editor, or one of its enumerations: whatever is asked of it has a value. */
function some(): object {
  class Some extends Disposable {}
  return new Proxy(Some, { get: (known, name) => Reflect.get(known, name) ?? name });
}

/** An object with these members, and whatever else is asked for: classes and enumerations, events
 * that never happen, functions that do nothing. */
function having(members: Record<string, unknown>): object {
  return new Proxy(members, {
    get: (known, name) => {
      if (name in known || typeof name !== "string") {
        return Reflect.get(known, name);
      }
      return /^[A-Z]/.test(name) ? some() : () => new Disposable();
    },
  });
}

const configuration = new Emitter();
const item = { text: "", tooltip: "", show: () => undefined, dispose: () => undefined };

/** What the editor shows, and what a user does to it. */
export const editor = {
  warnings: [] as string[],
  errors: [] as string[],
  settings: {} as Record<string, unknown>,
  commands: {} as Record<string, () => Promise<void>>,
  item,
  /** Change a setting; resolves when everybody who was told has done what follows from it. */
  async set(name: string, value: unknown): Promise<void> {
    editor.settings[name] = value;
    const affectsConfiguration = (section: string): boolean => `atlasd.${name}`.startsWith(section);
    await configuration.fire({ affectsConfiguration });
  },
};

const vscode = having({
  Disposable,
  EventEmitter: Emitter,
  window: having({
    state: { focused: true },
    visibleTextEditors: [],
    tabGroups: having({ all: [] }),
    createStatusBarItem: () => item,
    createOutputChannel: () => having({}),
    showWarningMessage: async (message: string) => void editor.warnings.push(message),
    showErrorMessage: async (message: string) => void editor.errors.push(message),
  }),
  workspace: having({
    isTrusted: true,
    textDocuments: [],
    notebookDocuments: [],
    workspaceFolders: undefined,
    onDidChangeConfiguration: configuration.event,
    getConfiguration: () => ({ get: (key: string) => editor.settings[key] }),
  }),
  commands: having({
    registerCommand: (name: string, run: () => Promise<void>) => {
      editor.commands[name] = run;
      return new Disposable();
    },
  }),
  languages: having({}),
  notebooks: having({}),
  extensions: having({}),
  env: having({ language: "en", appName: "stand-in" }),
  version: "1.91.0",
});

const loader = Module as unknown as { _load: Loaded };
const load = loader._load;
// Bundled code copies what a module has by its own, and keeps its prototype.
const module = Object.create(vscode) as unknown;
loader._load = (request, ...rest) => (request === "vscode" ? module : load(request, ...rest));
