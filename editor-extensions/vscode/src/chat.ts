/** A question about the selection, answered into an untitled document beside it. */

import * as vscode from "vscode";

import type { Bridge } from "./bridge";

export async function chatAboutSelection(bridge: Bridge): Promise<void> {
  const editor = vscode.window.activeTextEditor;
  if (!editor) {
    return;
  }
  const question = await vscode.window.showInputBox({
    title: "Ask about the selection",
    prompt: "For example: explain this, write a docstring, find the bug",
  });
  if (!question) {
    return;
  }
  const selection = editor.document.getText(editor.selection);
  const answer = await vscode.workspace.openTextDocument({ language: "markdown", content: "" });
  await vscode.window.showTextDocument(answer, vscode.ViewColumn.Beside, true);
  const writer = new Writer(answer);
  const token = `chat-${Date.now()}`;
  const listening = bridge.onNotification("atlasd/chatText", (params) => {
    const { token: of, text } = params as { token: string; text: string };
    if (of === token) {
      writer.append(text);
    }
  });
  try {
    await bridge.execute(
      "atlasd.chat",
      question,
      selection,
      editor.document.languageId,
      token,
      editor.document.uri.toString(),
    );
    await writer.done();
  } finally {
    listening.dispose();
  }
}

/** Appends to a document one edit after the other: edits that overlap in time are refused. */
class Writer {
  private queue: Promise<unknown> = Promise.resolve();

  constructor(private readonly document: vscode.TextDocument) {}

  append(text: string): void {
    this.queue = this.queue.then(() => {
      const edit = new vscode.WorkspaceEdit();
      const end = this.document.lineAt(this.document.lineCount - 1).range.end;
      edit.insert(this.document.uri, end, text);
      return vscode.workspace.applyEdit(edit);
    });
  }

  async done(): Promise<void> {
    await this.queue;
  }
}
