/** The page that a DLP answers an upload with: what it says to people, as a line of text. */
import { Parser } from "htmlparser2";

/** Bytes that are looked at. */
const MAX_PAGE = 16 * 1024;
/** What stands in these is not for reading. */
const UNREAD: ReadonlySet<string> = new Set(["script", "style", "noscript", "template", "svg"]);

/** These part no words. */
const INLINE: ReadonlySet<string> = new Set(["a", "abbr", "b", "code", "em", "font", "i", "q", "small", "span", "strong", "u"]);

export class BlockPage {
  readonly #chunks: Buffer[] = [];
  #size = 0;

  /** Takes the next bytes; those past the first 16 KiB are thrown away. */
  async write(bytes: Uint8Array): Promise<void> {
    const part = Buffer.from(bytes.subarray(0, MAX_PAGE - this.#size));
    if (part.length === 0) return;
    this.#chunks.push(part);
    this.#size += part.length;
  }

  /** What is to be read on it, in one line; undefined when that is nothing, or this is no text. */
  text(contentType: string | undefined): string | undefined {
    const [, type = "", charset = "utf-8"] = TEXT.exec(contentType ?? "text/html") ?? [];
    if (type === "") return undefined;
    const page = decoderFor(charset).decode(Buffer.concat(this.#chunks));
    const text = (type.toLowerCase() === "plain" ? page : readable(page)).replaceAll(/\s+/gu, " ").trim();
    return text === "" ? undefined : text;
  }
}

const TEXT = /^text\/(html|plain)\s*(?:;.*?\bcharset="?([\w-]{1,40})|;|$)/i;

function decoderFor(charset: string): TextDecoder {
  try {
    return new TextDecoder(charset);
  } catch {
    return new TextDecoder();
  }
}

function readable(html: string): string {
  const words: string[] = [];
  let unread = 0;
  const parser = new Parser({
    onopentagname: (name) => {
      if (!INLINE.has(name)) words.push(" ");
      if (UNREAD.has(name)) unread += 1;
    },
    ontext: (text) => {
      if (unread === 0) words.push(text);
    },
    onclosetag: (name) => {
      if (!INLINE.has(name)) words.push(" ");
      if (UNREAD.has(name)) unread -= 1;
    },
  });
  parser.end(html);
  return words.join("");
}
