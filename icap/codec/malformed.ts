/** A message that breaks the grammar (`protocol`) or is larger than we read (`limit`). After it, nothing on that connection can be trusted. */
export class MalformedMessage extends Error {
  override readonly name = "MalformedMessage";
  readonly code: "protocol" | "limit";

  constructor(code: "protocol" | "limit", message: string) {
    super(message);
    this.code = code;
  }
}

const QUOTED = 60;

/** At most 60 characters of what a peer sent, in quotes, with everything but printable ASCII escaped. */
export function quote(text: string): string {
  const escaped = text
    .slice(0, QUOTED)
    .replace(/[^\x20-\x7e]|["\\]/g, (char) => (char === '"' || char === "\\" ? `\\${char}` : `\\u{${char.charCodeAt(0).toString(16)}}`));
  return `"${escaped}"${text.length > QUOTED ? "…" : ""}`;
}
