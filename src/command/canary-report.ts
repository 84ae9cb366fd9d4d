/** What `icap canary` found, for people and for scripts. */
import type { CanaryKind } from "../scan/canary-samples.ts";
import { formatSize } from "../scan/format-size.ts";
import type { SampleAnswer } from "./canary-question.ts";
import { formatTime } from "./format-time.ts";
import { jsonLine, printable } from "./printable.ts";
import { type Cell, Table } from "./table.ts";

/** One sample, and what came of it. */
export interface Trial {
  readonly sample: CanaryKind | "harmless" | "large";
  readonly size: number;
  readonly answer: SampleAnswer;
  /** Of the harmless file `passed` or `blocked`, of all others `caught` or `missed`; `unknown`: there was no verdict. */
  readonly result: "passed" | "blocked" | "caught" | "missed" | "unknown";
  /** Whether the gateway would not use a service that fails at it. */
  readonly required: boolean;
  /** What to set. */
  readonly advice: string | undefined;
}

export interface ProvenSize {
  /** Bytes. */
  readonly wanted: number;
  /** The largest at which EICAR was found; 0: none. */
  readonly proven: number;
  /** False: something went wrong, and more may hold. */
  readonly complete: boolean;
  /** It is certain that not all of it is scanned. */
  readonly fallsShort: boolean;
}

export interface CanaryFindings {
  readonly url: string;
  readonly tags: readonly string[];
  readonly trials: readonly Trial[];
  /** Undefined when it was not to be found out, or could not. */
  readonly size: ProvenSize | undefined;
  readonly advice: readonly string[];
}

const RESULTS: Readonly<Record<Trial["result"], Cell>> = {
  passed: { text: "passed", style: "green" },
  caught: { text: "caught", style: "green" },
  blocked: { text: "BLOCKED", style: "red" },
  missed: { text: "MISSED", style: "red" },
  unknown: { text: "unknown", style: "yellow" },
};

/** A row as soon as each answer is there. */
export class CanaryTable {
  readonly #table = new Table(
    [
      { title: "SAMPLE", width: 9 },
      { title: "SIZE", width: 9, align: "right" },
      { title: "RESULT", width: 7 },
      { title: "VERDICT", width: 11 },
      { title: "TIME", width: 7, align: "right" },
      { title: "THREAT OR REASON" },
    ],
    process.stdout,
  );

  begin(url: string): void {
    process.stdout.write(`${printable(url)}\n\n`);
    this.#table.heading();
  }

  row({ sample, size, answer, result }: Trial): void {
    const { outcome, milliseconds, detail } = answer;
    this.#table.row([sample, formatSize(size), RESULTS[result], outcome, formatTime(milliseconds), printable(detail)]);
  }

  end({ size, advice, trials }: CanaryFindings): void {
    if (size !== undefined) process.stdout.write(`\n${sizeInWords(size)}\n`);
    for (const [index, text] of advice.entries()) process.stdout.write(`${index === 0 ? "\n" : ""}- ${printable(text)}\n`);
    if (advice.length === 0 && trials.every(({ result }) => isGood(result))) process.stdout.write("\nNothing to mend.\n");
  }
}

/** Whether this is what was to be seen. */
export function isGood(result: Trial["result"]): boolean {
  return result === "passed" || result === "caught";
}

function sizeInWords({ wanted, proven, complete }: ProvenSize): string {
  if (proven >= wanted) return `Proven size: ${formatSize(proven)}, all that was asked for`;
  return `Proven size: ${formatSize(proven)} of ${formatSize(wanted)}${complete ? "" : "; perhaps more, since not all was answered"}`;
}

/** One line. */
export function canaryJson({ url, tags, trials, size, advice }: CanaryFindings): string {
  return jsonLine({
    url,
    tags,
    samples: trials.map(
      ({ sample, size: bytes, answer: { milliseconds, outcome, detail, ...rest }, result, required, advice: ownAdvice }) => ({
        sample,
        size: bytes,
        result,
        required,
        outcome,
        ...(detail === "" ? {} : { detail }),
        ...("code" in rest ? { code: rest.code } : {}),
        milliseconds: Math.round(milliseconds),
        ...(ownAdvice === undefined ? {} : { advice: ownAdvice }),
      }),
    ),
    ...(size === undefined ? {} : { provenSize: { wanted: size.wanted, proven: size.proven, complete: size.complete } }),
    advice,
  });
}
