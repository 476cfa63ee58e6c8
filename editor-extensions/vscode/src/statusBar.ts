/** The status bar item: the daemon's state and decode speed. */

import * as vscode from "vscode";

import type { Bridge } from "./bridge";
import { type DaemonStatus, describe, speed } from "./status";

const PERIOD_MS = 3000;
const LOADING_PERIOD_MS = 500;

export class StatusBar implements vscode.Disposable {
  private readonly item = vscode.window.createStatusBarItem(
    "atlasd.status",
    vscode.StatusBarAlignment.Right,
    100,
  );
  private timer: NodeJS.Timeout | undefined;
  private focusing: vscode.Disposable | undefined;
  private looks = 0;
  private last: DaemonStatus | undefined;
  private rate: number | undefined;

  constructor(private readonly bridge: Bridge) {
    this.item.name = "atlasd";
    this.item.command = "atlasd.showMenu";
    this.item.show();
    void this.refresh();
  }

  /** Look now, and from then on again and again; of looks that overlap the latest counts. */
  async refresh(): Promise<void> {
    this.supersede();
    const look = this.looks;
    const status = await this.bridge.status();
    if (look !== this.looks) {
      return;
    }
    this.rate = speed(this.last, status) ?? this.rate;
    this.last = status;
    const shown = describe(status, this.bridge.enabled, this.rate);
    this.item.text = shown.text;
    this.item.tooltip = shown.tooltip;
    this.item.backgroundColor = shown.warning
      ? new vscode.ThemeColor("statusBarItem.warningBackground")
      : undefined;
    const period = status.state === "loading" ? LOADING_PERIOD_MS : PERIOD_MS;
    this.timer = setTimeout(() => this.lookIfSeen(), period);
  }

  /** Nobody looks at a window in the background: it does not ask. */
  private lookIfSeen(): void {
    if (vscode.window.state.focused) {
      void this.refresh();
      return;
    }
    this.focusing = vscode.window.onDidChangeWindowState((state) => {
      if (state.focused) {
        void this.refresh();
      }
    });
  }

  /** End whatever would look next, or is looking. */
  private supersede(): void {
    this.looks += 1;
    clearTimeout(this.timer);
    this.focusing?.dispose();
    this.focusing = undefined;
  }

  dispose(): void {
    this.supersede();
    this.item.dispose();
  }
}
