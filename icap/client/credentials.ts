import { createHmac } from "node:crypto";

/** So many characters of a secret in a row are too many; of a shorter secret, all of it. */
const PIECE = 8;
/** What is shorter than this is in every other text by chance, and hidden from nobody. */
const MIN_LENGTH = 3;
const MAX_LENGTH = 1024;
// oxlint-disable-next-line no-control-regex -- these are the very characters that must not be there
const CONTROL = /[\0-\x1f\x7f]/;

/** A user name and password as a field (RFC 7617); makes sure that no text about a server repeats what that server was told. */
export class Credentials {
  readonly field: readonly [name: string, value: string];
  readonly #token: string;
  readonly #secrets: readonly string[];

  /** @throws TypeError for what the scheme can't carry; it quotes nothing. */
  constructor({ username, password }: { readonly username: string; readonly password: string }) {
    const both = [username, password];
    if (both.some((text) => text.length > MAX_LENGTH || CONTROL.test(text) || !text.isWellFormed())) {
      throw new TypeError(`credentials may have ${MAX_LENGTH} characters each at most, none of them a control character`);
    }
    if (username.includes(":")) throw new TypeError("the username of credentials may not hold a colon");
    const token = Buffer.from(`${username}:${password}`, "utf8").toString("base64");
    this.field = ["Proxy-Authorization", `Basic ${token}`];
    this.#token = token;
    this.#secrets = [token, password].filter((secret) => secret.length >= MIN_LENGTH);
  }

  /** Whether the text holds a piece of the credentials. */
  isRepeatedIn(text: string): boolean {
    return this.#secrets.some((secret) => repeats(text, secret));
  }

  /** The text; or, when it holds a piece of the credentials, what stands in its place. */
  scrub(text: string): string {
    return this.isRepeatedIn(text) ? "the server repeated the credentials that it was sent" : text;
  }

  /** As `scrub`, for what is only ever compared: the same for the same text, and another for another. */
  disguise(tag: string): string {
    return this.isRepeatedIn(tag) ? `hidden:${createHmac("sha256", this.#token).update(tag).digest("base64url")}` : tag;
  }
}

/** A quote may be cut short, so that pieces count. */
function repeats(text: string, secret: string): boolean {
  const piece = Math.min(PIECE, secret.length);
  for (let at = 0; at + piece <= secret.length; at++) {
    if (text.includes(secret.slice(at, at + piece))) return true;
  }
  return false;
}
