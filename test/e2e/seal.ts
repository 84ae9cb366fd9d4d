/** `encrypted_body` as clients make it. */
import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import olm from "@matrix-org/olm";
import { python } from "../support/synapse-environment.ts";

export interface EncryptedBody {
  readonly ciphertext: string;
  readonly mac: string;
  readonly ephemeral: string;
}

export type Seal = (publicKey: string, plaintext: string) => Promise<EncryptedBody>;

const SEAL = new URL("seal.py", import.meta.url).pathname;

export async function sealByOlm(publicKey: string, plaintext: string): Promise<EncryptedBody> {
  await olm.init();
  const encryption = new olm.PkEncryption();
  try {
    encryption.set_recipient_key(publicKey);
    return encryption.encrypt(plaintext);
  } finally {
    encryption.free();
  }
}

export async function sealByVodozemac(publicKey: string, plaintext: string): Promise<EncryptedBody> {
  const child = spawn(await python(), ["-I", SEAL, publicKey], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(plaintext);
  return JSON.parse(await text(child.stdout)) as EncryptedBody;
}
