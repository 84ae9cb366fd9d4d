/** What is known of a content, for people and as JSON. */
import { printable } from "./printable.ts";
import { type Cell, Table, widthOf } from "./table.ts";
import type { Asker, KeptOverride, RememberedVerdict } from "./verdict-tools.ts";

export interface Knowledge {
  readonly sha256: string;
  readonly overrides: readonly KeptOverride[];
  /** Undefined where there is no list. */
  readonly listed: boolean | undefined;
  readonly verdict: RememberedVerdict | undefined;
  /** Whether gateways share verdicts, so that there is one to be found. */
  readonly isShared: boolean;
  /** By whom it is kept apart. */
  readonly keptApartBy: readonly (keyof Asker)[];
}

/** Overrides, newest first. */
export function listRows(records: readonly KeptOverride[]): void {
  const sorted = records.toSorted((one, other) => other.at - one.at);
  const columns = [
    { title: "SHA-256", width: 64 },
    { title: "", width: 6 },
    { title: "Since", width: 24 },
    { title: "Until", width: widthOf(sorted.map(until)) },
    { title: "Reason" },
  ];
  const table = new Table(columns, process.stdout);
  if (sorted.length > 0) table.heading();
  for (const record of sorted) {
    const { sha256, at, reason } = record;
    table.row([sha256, kindOf(record), isoTime(at), until(record), printable(reason)]);
  }
}

export function show(known: Knowledge): void {
  const rows: [string, Cell][] = [["SHA-256", known.sha256]];
  for (const record of known.overrides) {
    const { style } = kindOf(record);
    rows.push(["Override", { style, text: overrideWords(record) }]);
  }
  if (known.overrides.length === 0) rows.push(["Override", "none"]);
  if (known.listed !== undefined)
    rows.push(["List", known.listed ? { text: "on the list of blocked hashes", style: "red" } : "not on the list of blocked hashes"]);
  rows.push(["Verdict", verdictCell(known)]);
  for (const [scanner, { tag, at }] of Object.entries(known.verdict?.stamps ?? {})) {
    rows.push(["", printable(`${scanner}, ${isoTime(at)}${tag === "" ? "" : `, ISTag ${tag}`}`)]);
  }
  const table = new Table([{ title: "", width: widthOf(rows.map(([name]) => name)) }, { title: "" }], process.stdout);
  for (const [name, cell] of rows) table.row([{ text: name, style: "bold" }, cell]);
}

export function overrideJson({ sha256, kind, reason, at, expiresAt }: KeptOverride): unknown {
  return { sha256, kind, reason, since: isoTime(at), until: expiresAt === undefined ? null : isoTime(expiresAt) };
}

export function knowledgeJson({ sha256, overrides, listed, verdict }: Knowledge): unknown {
  return {
    sha256,
    overrides: overrides.map(overrideJson),
    ...(listed === undefined ? {} : { listed }),
    verdict: verdict === undefined ? null : verdict,
  };
}

function overrideWords({ kind, reason, at, expiresAt }: KeptOverride): string {
  if (kind === "forget") return printable(`forgotten: verdicts until ${isoTime(at)} don't count${reason === "" ? "" : ` (${reason})`}`);
  const time = `since ${isoTime(at)}${expiresAt === undefined ? "" : ` until ${isoTime(expiresAt)}`}`;
  return printable(`${kind === "block" ? "blocked" : "allowed"} ${time}${reason === "" ? "" : ` (${reason})`}`);
}

function kindOf({ kind }: KeptOverride): Exclude<Cell, string> {
  const style = kind === "block" ? "red" : kind === "allow" ? "green" : "dim";
  return { text: kind, style };
}

const APART: Readonly<Record<keyof Asker, string>> = { user: "the user (--user)", clientAddress: "the client's address (--client-ip)" };

function verdictCell({ verdict, isShared, keptApartBy }: Knowledge): Cell {
  if (!isShared) return "without Redis, each gateway keeps its verdicts to itself";
  if (verdict === undefined) {
    const apart = keptApartBy.map((by) => APART[by]).join(" and ");
    return apart === "" ? "none is remembered" : `none is remembered for this asker: scanners are told of ${apart}`;
  }
  switch (verdict.outcome) {
    case "clean":
      return { text: "clean", style: "green" };
    case "infected":
      return { text: printable(`infected: ${verdict.threat} (${verdict.scanner})`), style: "red" };
    case "type_forbidden":
      return { text: printable(`type ${verdict.mime} is not allowed`), style: "red" };
  }
}

function until({ expiresAt }: KeptOverride): string {
  return expiresAt === undefined ? "–" : isoTime(expiresAt);
}

function isoTime(time: number): string {
  return new Date(time).toISOString();
}
