/** What clients say of an encrypted file: `{file}` in the clear, or `{encrypted_body}` to the gateway's public key. */
import type { RequestKeys } from "../crypto/keys.ts";
import { decryptRequestBody } from "../crypto/request-body.ts";
import { GatewayError } from "../errors.ts";

/**
 * What `read` makes of the value of `file`.
 * @throws GatewayError `bad_decryption`, also for whatever `read` throws of what was encrypted; else whatever it throws.
 */
export function readEncryptedFile<T>(keys: RequestKeys, body: Readonly<Record<string, unknown>>, read: (file: unknown) => T): T {
  if (body["encrypted_body"] === undefined) return read(body["file"]);
  const inner = decryptRequestBody(keys, body["encrypted_body"]);
  try {
    return read((inner as Readonly<Record<string, unknown>>)["file"]);
  } catch (error) {
    // One answer for all that can be wrong with it: a second one would make an oracle.
    throw new GatewayError("bad_decryption", { cause: error });
  }
}
