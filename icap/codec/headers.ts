import type { IcapLimits } from "./limits.ts";
import { MalformedMessage, quote } from "./malformed.ts";

const NONE: readonly string[] = [];
const FIELD_NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** The fields of one head, in order. Names have any case (RFC 3507 section 4.3). */
export class HeaderBlock {
  /** In lower case, in order; one that came twice stands there twice. */
  readonly names: readonly string[];
  readonly #values: readonly string[];

  constructor(names: readonly string[], values: readonly string[]) {
    this.names = names;
    this.#values = values;
  }

  static readonly empty = new HeaderBlock([], []);

  /**
   * Reads `lines`, from the one at `from`. Values are trimmed; a folded value keeps its lines, each trimmed, joined by LF, because
   * some vendors' fields have one item a line.
   * @throws MalformedMessage
   */
  static parse(lines: readonly string[], from: number, limits: IcapLimits): HeaderBlock {
    const names: string[] = [];
    const values: string[] = [];
    for (let at = from; at < lines.length; at++) {
      const line = lines[at] ?? "";
      if (line.startsWith(" ") || line.startsWith("\t")) {
        if (values.length === 0) throw new MalformedMessage("protocol", `a head begins with a folded line ${quote(line)}`);
        values.push(`${values.pop() ?? ""}\n${trim(line)}`);
        continue;
      }
      const colon = line.indexOf(":");
      const name = line.slice(0, Math.max(colon, 0));
      if (!FIELD_NAME.test(name)) throw new MalformedMessage("protocol", `not a header field: ${quote(line)}`);
      if (names.length === limits.headerCount) throw new MalformedMessage("limit", `more than ${limits.headerCount} header fields`);
      names.push(name.toLowerCase());
      values.push(trim(line.slice(colon + 1)));
    }
    return new HeaderBlock(names, values);
  }

  get size(): number {
    return this.names.length;
  }

  /** The first value of a field. */
  get(name: string): string | undefined {
    const at = this.names.indexOf(name.toLowerCase());
    return at === -1 ? undefined : this.#values[at];
  }

  all(name: string): readonly string[] {
    const wanted = name.toLowerCase();
    if (!this.names.includes(wanted)) return NONE;
    return this.#values.filter((_, at) => this.names[at] === wanted);
  }

  /** Lower-case names and values, in order. */
  entries(): (readonly [name: string, value: string])[] {
    return this.names.map((name, at) => [name, this.#values[at] ?? ""] as const);
  }

  /** Whether a list field such as `Connection` holds this token. */
  lists(name: string, token: string): boolean {
    return this.all(name).some((value) => value.split(/[,\n]/).some((item) => item.trim().toLowerCase() === token));
  }

  /** These fields and then those of a trailer. */
  with(trailer: HeaderBlock): HeaderBlock {
    if (trailer.size === 0) return this;
    return new HeaderBlock([...this.names, ...trailer.names], [...this.#values, ...trailer.#values]);
  }
}

/** Blanks and tabs only: what else Unicode takes for a space belongs to the value. */
function trim(text: string): string {
  let from = 0;
  let to = text.length;
  while (from < to && isBlank(text.charCodeAt(from))) from++;
  while (to > from && isBlank(text.charCodeAt(to - 1))) to--;
  return text.slice(from, to);
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}
