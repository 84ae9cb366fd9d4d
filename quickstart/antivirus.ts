/** The demonstration's antivirus: the project's own ICAP server, which knows EICAR, encrypted zips and a list of SHA-256. */
import { createHash } from "node:crypto";
import { IcapServer, signatureService } from "../icap/index.ts";
import { EICAR } from "../src/scan/canary-samples.ts";
import { LISTED } from "./demo-media.ts";

/** A zip entry's header (APPNOTE.TXT 6.3.10, section 4.3.7) with the flag that says encrypted. */
const ENCRYPTED_ZIP_ENTRY = Buffer.from("PK\x03\x04\x14\0\x01\0", "latin1");

/** Listens on a free port of 127.0.0.1. */
export async function startAntivirus(): Promise<{ url: string } & AsyncDisposable> {
  const server = new IcapServer({
    services: {
      scan: signatureService({
        table: { isTag: "quickstart-1", description: "quickstart antivirus" },
        signatures: [
          { threat: "Eicar-Test-Signature", contains: EICAR },
          { threat: "Heuristics.Encrypted.Zip", contains: ENCRYPTED_ZIP_ENTRY },
          { threat: "Listed-By-SHA256", sha256: createHash("sha256").update(LISTED).digest("hex") },
        ],
      }),
    },
  });
  const { port } = await server.listen(0);
  return { url: `icap://127.0.0.1:${port}/scan`, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}
