/**
 * How an answer's fields and statuses are read: rows of data (`profiles.ts`), and for each of the ways in which vendors say something a
 * reader by name. A value is harmless only where its row says so; whatever is not understood is a finding.
 */

/**
 * A head's fields; names have any case, but `names` holds all of them in lower case. `get` gives the first value; a folded value keeps its lines,
 * separated by LF.
 */
export interface HeaderReader {
  readonly names: readonly string[];
  get(name: string): string | undefined;
  all(name: string): readonly string[];
}

/**
 * What is said. `named`: infected, with the threat's name; `blocked`: infected, no name. In order of weight: a named threat counts
 * whatever else is said; "blocked" comes with every verdict but clean, so it yields to the reason that an unscannable file has.
 * `sanitised` is no finding of its own: another body, where one came back, is the file made harmless.
 */
export type Grade = "named" | "unscannable" | "blocked" | "error" | "modified" | "sanitised";

export interface Finding {
  readonly grade: Grade;
  readonly text: string;
}

/**
 * - `threat`: the value is the name of what was found.
 * - `infection-found`, `violations-found`: X-Infection-Found and X-Violations-Found (draft-stecher-icap-subid).
 * - `blocked`: whatever the value, the file is blocked.
 * - `error`: whatever the value, there was no scan.
 */
export type Says = "threat" | "infection-found" | "violations-found" | "blocked" | "error";

export interface HeaderRow {
  readonly header: string;
  readonly says: Says;
  /** Values, in lower case, that come with files in which nothing was found. */
  readonly except?: readonly string[];
  /** Values, in lower case, that come with what is harmless by now, if it is not what was sent. They should be exceptions as well. */
  readonly sanitised?: readonly string[];
  /** What the engine could not look into. */
  readonly unscannable?: RegExp;
  /** Of `error`: what was blocked by a rule. */
  readonly blocked?: RegExp;
}

export interface StatusRow {
  /** One, or the first and the last of a range. */
  readonly status: number | readonly [number, number];
  readonly says: "unscannable" | "blocked" | "error" | "modified";
  /** For an operator, where the number does not say it. */
  readonly why?: string;
}

/** All that the interpreter has to know of a server. Of several rows for a status the first one counts; of those for a header, all. */
export interface Reading {
  readonly headers: readonly HeaderRow[];
  readonly icap: readonly StatusRow[];
  readonly http: readonly StatusRow[];
  /** What another body means that comes back with the status that was sent, and without a word. */
  readonly replaced: "modified" | "blocked";
  /** It acquits every preview without looking, so its 204 after one is never believed. */
  readonly blindPreview: boolean;
}

type Reader = (value: string, row: HeaderRow) => readonly Finding[];

const READERS: Readonly<Record<Says, Reader>> = {
  threat: (value, row) => [nameOf(value, row)],
  "infection-found": infectionFound,
  "violations-found": violationsFound,
  blocked: (value, row) => [{ grade: row.unscannable?.test(value) === true ? "unscannable" : "blocked", text: `${row.header}: ${value}` }],
  error: (value, row) => [{ grade: errorGrade(value, row), text: `${row.header}: ${value}` }],
};

/** A longer value counts as not understood, so that no pattern here has much to chew on. */
const MAX_VALUE = 4096;

/** What these heads say, in the order of the rows. */
export function readHeaders(rows: readonly HeaderRow[], heads: readonly HeaderReader[]): Finding[] {
  const telling = namesOf(rows);
  // Most answers hold none of these fields.
  if (!heads.some(({ names }) => names.some((name) => telling.has(name)))) return [];
  return rows.flatMap((row) => heads.flatMap((head) => head.all(row.header).flatMap((value) => readValue(row, value.trim()))));
}

/** What a status says; undefined where no row names it. `protocol` is "ICAP" or "HTTP". */
export function readStatus(rows: readonly StatusRow[], protocol: string, status: number): Finding | undefined {
  const row = rows.find(({ status: of }) => (typeof of === "number" ? status === of : of[0] <= status && status <= of[1]));
  if (row === undefined) return undefined;
  return { grade: row.says, text: row.why === undefined ? `${protocol} ${status}` : `${protocol} ${status} (${row.why})` };
}

const NAMES = new WeakMap<readonly HeaderRow[], ReadonlySet<string>>();

/** Of all fields that the rows speak of, in lower case. */
function namesOf(rows: readonly HeaderRow[]): ReadonlySet<string> {
  const known = NAMES.get(rows);
  if (known !== undefined) return known;
  const names = new Set(rows.map(({ header }) => header.toLowerCase()));
  NAMES.set(rows, names);
  return names;
}

function readValue(row: HeaderRow, value: string): readonly Finding[] {
  if (value.length > MAX_VALUE) return [{ grade: "named", text: `${row.header}: ${value}` }];
  const said = value.toLowerCase();
  const found = row.except?.includes(said) === true ? [] : READERS[row.says](value, row);
  return row.sanitised?.includes(said) === true ? [...found, { grade: "sanitised", text: value }] : found;
}

/** A field that holds a threat's name. There is none for clean files, so that a name nobody can read is a threat as well. */
function nameOf(value: string, { unscannable }: HeaderRow): Finding {
  return { grade: unscannable?.test(value) === true ? "unscannable" : "named", text: value };
}

function errorGrade(value: string, { unscannable, blocked }: HeaderRow): Grade {
  if (unscannable?.test(value) === true) return "unscannable";
  return blocked?.test(value) === true ? "blocked" : "error";
}

/** `Type=0; Resolution=2; Threat=Eicar;`. Container problems are unscannable; all else is infected. */
function infectionFound(value: string, row: HeaderRow): readonly Finding[] {
  const types = parameter(value, "Type");
  const resolutions = parameter(value, "Resolution");
  // The threat is the last parameter and may hold anything.
  const before = /(?:^|;)\s*Threat\s*=\s*/i.exec(value);
  const threat = before === null ? value : withoutEnd(value.slice(before.index + before[0].length));
  const container = types.length === 1 && types[0] === "2" && resolutions.length <= 1 && resolutions[0] !== "1";
  if (container) return [{ grade: "unscannable", text: threat }];
  return resolutions.includes("1") ? [{ grade: "named", text: threat }] : [nameOf(threat, row)];
}

/** Without blanks and semicolons at its end; by hand, because a pattern would begin anew at each of them. */
function withoutEnd(text: string): string {
  let to = text.length;
  while (to > 0 && /[\s;]/.test(text.charAt(to - 1))) to--;
  return text.slice(0, to);
}

/** Every value that a parameter has in a list like `Type=0; Resolution=2`; more than one is a lie somewhere. */
function parameter(value: string, name: string): string[] {
  return value.split(";").flatMap((part) => {
    const [key = "", ...rest] = part.split("=");
    return key.trim().toLowerCase() === name.toLowerCase() ? [rest.join("=").trim()] : [];
  });
}

/** `N`, then four lines for each: file name, threat, problem ID, resolution ID. Fewer than N may follow; those have no name to excuse them. */
function violationsFound(value: string, row: HeaderRow): readonly Finding[] {
  if (/^0+$/.test(value)) return [];
  const [count = "", ...lines] = value.split("\n").map((line) => line.trim());
  const threats = lines.filter((_, index) => index % 4 === 1);
  const found = threats.map((threat) => nameOf(threat, row));
  if (count !== String(threats.length)) found.push({ grade: "named", text: `${row.header}: ${value}` });
  return found;
}
