/** The extension's settings as plain values, so that they can be tested without an editor. */

export interface Settings {
  enable: boolean;
  automatic: boolean;
  disabledLanguages: string[];
  command: string[];
  startDaemon: boolean;
  daemonCommand: string[];
  maxTokens: number;
}

export const DEFAULTS: Settings = {
  enable: true,
  automatic: true,
  disabledLanguages: ["scminput", "git-commit"],
  command: ["atlasd-lsp"],
  startDaemon: true,
  daemonCommand: [],
  maxTokens: 0,
};

/** Settings from whatever reads configuration values; a value of the wrong type is its default. */
export function readSettings(get: (key: string) => unknown): Settings {
  const settings: Record<string, unknown> = { ...DEFAULTS };
  for (const [key, fallback] of Object.entries(DEFAULTS)) {
    const value = get(key);
    const fits = Array.isArray(fallback)
      ? Array.isArray(value) && value.every((one) => typeof one === "string")
      : typeof value === typeof fallback;
    settings[key] = fits ? value : fallback;
  }
  return settings as unknown as Settings;
}

/** What the bridge gets in `initializationOptions` and `workspace/didChangeConfiguration`. */
export function bridgeOptions(settings: Settings, trusted: boolean): Record<string, unknown> {
  return {
    editor: "vscode",
    trusted,
    startDaemon: settings.startDaemon,
    maxTokens: settings.maxTokens,
    // A workspace must not choose what is executed before it is trusted.
    daemonCommand: trusted ? settings.daemonCommand : [],
  };
}

/** Whether to ask for a suggestion at all. */
export function wanted(settings: Settings, language: string, invoked: boolean): boolean {
  return (
    settings.enable &&
    !settings.disabledLanguages.includes(language) &&
    (settings.automatic || invoked)
  );
}
