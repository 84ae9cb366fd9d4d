/** So many characters of a secret in a row are too many; a shorter secret may be a word by chance. */
const PIECE = 8;
const MAX_LENGTH = 1024;
// oxlint-disable-next-line no-control-regex -- these are the very characters that must not be there
const CONTROL = /[\0-\x1f\x7f]/;

/** A user name and password as a field (RFC 7617); makes sure that no text about a server repeats what that server was told. */
export class Credentials {
  readonly field: readonly [name: string, value: string];
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
    this.#secrets = [token, password];
  }

  /** The text; or, when it holds a piece of the credentials, what stands in its place. */
  scrub(text: string): string {
    return this.#secrets.some((secret) => repeats(text, secret)) ? "the server repeated the credentials that it was sent" : text;
  }
}

/** A quote may be cut short, so that pieces count. */
function repeats(text: string, secret: string): boolean {
  for (let at = 0; at + PIECE <= secret.length; at++) {
    if (text.includes(secret.slice(at, at + PIECE))) return true;
  }
  return false;
}
