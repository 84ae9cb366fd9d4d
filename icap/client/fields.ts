import type { HeaderFields } from "../codec/serialize.ts";

/** What the client says itself, or what would change how the message or its answer is read. X-TE asks Trend to trickle. */
const RESERVED =
  /^(?:allow|authorization|connection|content-.*|date|encapsulated|expect|host|istag|keep-alive|preview|proxy-.*|te|trailer|transfer-.*|upgrade|user-agent|x-te)$/i;
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}$/;

/** Whether this is the name of a field that a caller may add to the ICAP head. */
export function isFreeField(name: string): boolean {
  return TOKEN.test(name) && !RESERVED.test(name);
}

/** @throws TypeError for a field that the client sets, or must not send. Values are the serializer's to check. */
export function checkFields(fields: HeaderFields): void {
  for (const [name] of fields) {
    if (!isFreeField(name)) throw new TypeError(`fields may not hold ${JSON.stringify(name.slice(0, 100))}`);
  }
}
