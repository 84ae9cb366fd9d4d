import { createHash } from "node:crypto";
import type { IcapHandler, IcapReply, IcapRequest, ServiceTable } from "./types.ts";

/** What a threat is known by: bytes that occur anywhere in it, or the SHA-256 of the whole (hexadecimal). */
export type Signature =
  | { readonly threat: string; readonly contains: Uint8Array; readonly sha256?: never }
  | { readonly threat: string; readonly sha256: string; readonly contains?: never };

export interface SignatureServiceOptions {
  readonly signatures: readonly Signature[];
  readonly table: ServiceTable;
}

/**
 * A service that finds what it is told to: good enough to show a gateway at work, no antivirus. It looks at the bytes as they come, and
 * into nothing that is compressed. Clean is a 204, which the client has to allow; infected is a 200 around a 403, with `X-Infection-Found`.
 */
export function signatureService({ signatures, table }: SignatureServiceOptions): IcapHandler {
  const patterns = signatures.flatMap(({ threat, contains }) => (contains === undefined ? [] : [{ threat, contains }]));
  const digests = new Map(signatures.flatMap(({ threat, sha256 }) => (sha256 === undefined ? [] : [[sha256.toLowerCase(), threat]])));
  if (patterns.some(({ contains }) => contains.length === 0)) throw new TypeError("a signature needs at least one byte");
  const longest = Math.max(1, ...patterns.map(({ contains }) => contains.length));

  async function find({ body }: IcapRequest): Promise<string | undefined> {
    const hash = createHash("sha256");
    let tail: Buffer = Buffer.alloc(0);
    let found: string | undefined;
    for await (const bytes of body) {
      hash.update(bytes);
      // A signature may begin in one chunk and end in another.
      const window = Buffer.concat([tail, bytes]);
      found ??= patterns.find(({ contains }) => window.includes(contains))?.threat;
      tail = window.subarray(Math.max(0, window.length - longest + 1));
    }
    return found ?? digests.get(hash.digest("hex"));
  }

  return {
    table,
    async handle(request) {
      if (!request.allow204) return { status: 418 };
      const threat = await find(request);
      return threat === undefined ? { status: 204 } : infected(threat);
    },
  };
}

function infected(threat: string): IcapReply {
  const page = Buffer.from(`The file is blocked: ${threat}\n`, "latin1");
  return {
    status: 200,
    fields: [["X-Infection-Found", `Type=0; Resolution=2; Threat=${threat};`]],
    http: {
      startLine: "HTTP/1.1 403 Forbidden",
      fields: [
        ["Content-Type", "text/plain"],
        ["Content-Length", String(page.length)],
      ],
      body: page,
    },
  };
}
