/** What the daemon says of itself (`GET /atlasd/v1/status`), and how the status bar puts it. */

export interface DaemonStatus {
  state: "loading" | "ready" | "failed" | "stopped" | "paused";
  stage?: string | null;
  fraction?: number | null;
  error?: string | null;
  engine_silent_s?: number;
  version?: string;
  model?: { model?: string; backend?: string; dtype?: string } | null;
  served?: { output_tokens: number; decode_s: number };
  repositories?: { root: string; files?: number; tokens?: number; state?: string }[];
}

/** An engine that owes an answer for so long is worth a word. */
const SILENT_S = 5;

export interface StatusText {
  text: string;
  tooltip: string;
  warning: boolean;
}

/** Decode speed since the last look, in tokens per second; undefined while nothing was decoded. */
export function speed(before: DaemonStatus | undefined, now: DaemonStatus): number | undefined {
  const old = before?.served;
  const served = now.served;
  if (!served || !old) {
    return undefined;
  }
  const tokens = served.output_tokens - old.output_tokens;
  const seconds = served.decode_s - old.decode_s;
  return tokens > 0 && seconds > 0 ? tokens / seconds : undefined;
}

/** One line for the status bar and what stands in its tooltip. */
export function describe(
  status: DaemonStatus,
  enabled: boolean,
  tokensPerSecond: number | undefined,
): StatusText {
  if (!enabled) {
    return { text: "$(circle-slash) atlasd", tooltip: "Completions are off.", warning: false };
  }
  const model = status.model?.model;
  switch (status.state) {
    case "ready": {
      const silent = Math.round(status.engine_silent_s ?? 0);
      if (silent >= SILENT_S) {
        return {
          text: "$(warning) atlasd",
          tooltip: `The engine has not answered for ${silent} s; if it hangs, it is started again.`,
          warning: true,
        };
      }
      const rate = tokensPerSecond === undefined ? "" : ` ${Math.round(tokensPerSecond)} tok/s`;
      return { text: `$(sparkle) atlasd${rate}`, tooltip: ready(status, model), warning: false };
    }
    case "loading": {
      const percent = status.fraction ? ` ${Math.floor(100 * status.fraction)} %` : "";
      return {
        text: `$(loading~spin) atlasd${percent}`,
        tooltip: status.stage ?? "Loading the model.",
        warning: false,
      };
    }
    case "paused":
      return {
        text: "$(debug-pause) atlasd",
        tooltip: "Paused: no completions, no model in memory.",
        warning: false,
      };
    case "stopped":
      return {
        text: "$(circle-outline) atlasd",
        tooltip: status.error ?? "The model is not loaded; it loads with the next request.",
        warning: Boolean(status.error),
      };
    case "failed":
      return {
        text: "$(error) atlasd",
        tooltip: `${status.error ?? "The model could not be loaded."} Run “atlasd doctor”.`,
        warning: true,
      };
  }
}

function ready(status: DaemonStatus, model: string | undefined): string {
  const lines = [`${model ?? "A model"} is ready (${status.model?.backend ?? "engine"}).`];
  for (const one of status.repositories ?? []) {
    lines.push(`${one.root}: ${one.files ?? 0} files, ${one.tokens ?? 0} tokens`);
  }
  return lines.join("\n");
}
