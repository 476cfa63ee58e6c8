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
  private last: DaemonStatus | undefined;
  private rate: number | undefined;

  constructor(private readonly bridge: Bridge) {
    this.item.name = "atlasd";
    this.item.command = "atlasd.showMenu";
    this.item.show();
    void this.refresh();
  }

  async refresh(): Promise<void> {
    clearTimeout(this.timer);
    const status = await this.bridge.status();
    this.rate = speed(this.last, status) ?? this.rate;
    this.last = status;
    const shown = describe(status, this.bridge.enabled, this.rate);
    this.item.text = shown.text;
    this.item.tooltip = shown.tooltip;
    this.item.backgroundColor = shown.warning
      ? new vscode.ThemeColor("statusBarItem.warningBackground")
      : undefined;
    const period = status.state === "loading" ? LOADING_PERIOD_MS : PERIOD_MS;
    // Nobody looks at a window in the background: it does not ask.
    this.timer = setTimeout(
      () => void (vscode.window.state.focused ? this.refresh() : this.wait()),
      period,
    );
  }

  private wait(): void {
    const focused = vscode.window.onDidChangeWindowState((state) => {
      if (state.focused) {
        focused.dispose();
        void this.refresh();
      }
    });
  }

  dispose(): void {
    clearTimeout(this.timer);
    this.item.dispose();
  }
}
