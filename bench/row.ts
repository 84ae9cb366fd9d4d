/** What is measured: a table of rows. A row is data; what it takes to run one is in `run-row.ts`, and for what is no load of requests in the row itself. */
import type { Settings } from "./gateway.ts";
import type { Endpoint } from "./load-spec.ts";
import type { Stage } from "./stage.ts";

export type Scanner =
  /** Answers at once. */
  | "instant"
  /** Answers after half a second. */
  | "slow"
  /** c-icap with clamd. */
  | "real"
  /** The same, with half of the cores for itself: while such a row is measured, everything else has the others. */
  | "real-apart";

/** What is measured in the same run to see how much there is to be had: the same answers from the homeserver; the same bytes, prepared, to the scanner. */
export type CeilingKind = "homeserver" | "icap";

/** What else is found out: what the homeserver, or Redis, is asked; scans, and downloads before the first verdict. */
export type ProbeKind = "homeserver" | "redis" | "scans";

export interface GatewaySetup {
  readonly scanner?: Scanner;
  /** Verdicts are in a Redis of its own, which is empty before each run. */
  readonly redis?: boolean;
  readonly instances?: number;
  /** Over those that every gateway of the benchmark has. */
  readonly settings?: Settings;
  /** The same of its one entry in `icap`. */
  readonly service?: Settings;
}

interface AnyRow {
  /** For `--only`. */
  readonly name: string;
  readonly title: string;
  /** At most so many runs: more would take too long. */
  readonly runs?: number;
  /** The gateway's; an implementation that was started by somebody else has what it has. */
  readonly gateway?: GatewaySetup;
}

export interface LoadRow extends AnyRow {
  readonly endpoint: Endpoint;
  /** Bytes of each media; any, where the answer is a verdict. */
  readonly size: number;
  /** How many media are asked for in turn; without it, none is asked for twice. */
  readonly media?: number;
  /** Request bodies are encrypted to the gateway's key. */
  readonly sealed?: true;
  readonly connections: number;
  /** In all, instead of as many as go into the time. */
  readonly requests?: number;
  /** Each media is asked for once, at the first instance, before it is measured. */
  readonly known?: true;
  /** Small media are asked for first, for as long as the warm-up lasts: its own requests are too few for V8 to compile what they need. */
  readonly warmed?: true;
  /** Of several instances, the last one alone is asked. */
  readonly lastInstance?: true;
  readonly ceilings: readonly CeilingKind[];
  readonly probes?: readonly ProbeKind[];
}

/** By what it is, with its unit. */
export type Facts = Readonly<Record<string, number>>;

export interface FactRow extends AnyRow {
  readonly measure: (stage: Stage, setup: GatewaySetup) => Promise<Facts>;
}

export type Row = LoadRow | FactRow;

/** Rows that belong together, in a table of their own. */
export interface Group {
  readonly name: string;
  readonly title: string;
  /** Left out unless it, or a row of it, is asked for: it takes long. */
  readonly onlyIfAsked?: true;
  readonly rows: readonly Row[];
}
