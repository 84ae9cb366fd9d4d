/** The files that the demonstration sends through the gateway. */
import { EICAR } from "../src/scan/canary-samples.ts";
import { type EncryptedFile, encryptAttachment } from "./encrypted-attachment.ts";
import type { StoredMedia } from "./media-repository.ts";

export const SERVER_NAME = "demo.example";

const CLEAN = Buffer.from("Hello! This file went through the antivirus gateway, and nothing was found in it.\n");
const NOTICE = Buffer.from("Old media, which the homeserver shows to everybody: it is scanned all the same.\n");

/** Harmless, but on the ICAP server's list of SHA-256. */
export const LISTED = Buffer.from("Nobody could tell this from a clean file, but for its SHA-256.\n");

export interface DemoMedia {
  /** By `server name/media ID`. */
  readonly stored: ReadonlyMap<string, StoredMedia>;
  readonly encryptedClean: EncryptedFile;
  readonly encryptedEicar: EncryptedFile;
  /** What `clean` is and `encryptedClean` decrypts to. */
  readonly clean: Buffer;
  readonly notice: Buffer;
}

export async function makeDemoMedia(): Promise<DemoMedia> {
  const encryptedClean = await encryptAttachment(CLEAN, `mxc://${SERVER_NAME}/encrypted-clean`);
  const encryptedEicar = await encryptAttachment(EICAR, `mxc://${SERVER_NAME}/encrypted-eicar`);
  const media: Record<string, StoredMedia> = {
    clean: text(CLEAN, "clean.txt"),
    eicar: text(EICAR, "eicar.com"),
    listed: text(LISTED, "listed.txt"),
    notice: { ...text(NOTICE, "notice.txt"), unauthenticated: true },
    "encrypted-clean": ciphertext(encryptedClean.ciphertext),
    "encrypted-eicar": ciphertext(encryptedEicar.ciphertext),
  };
  return {
    stored: new Map(Object.entries(media).map(([mediaId, one]) => [`${SERVER_NAME}/${mediaId}`, one])),
    encryptedClean: encryptedClean.file,
    encryptedEicar: encryptedEicar.file,
    clean: CLEAN,
    notice: NOTICE,
  };
}

function text(bytes: Uint8Array, fileName: string): StoredMedia {
  return { bytes, contentType: "text/plain", fileName };
}

/** What it is, and what it is called, only those who have the key know. */
function ciphertext(bytes: Uint8Array): StoredMedia {
  return { bytes, contentType: "application/octet-stream", fileName: "attachment" };
}
