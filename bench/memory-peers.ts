/** The gateway's peers for `memory.ts`, each a process of its own: `homeserver`, which holds the media, and `icap`, which finds everything clean. */
import { createHash, randomBytes } from "node:crypto";
import { IcapServer } from "../icap/index.ts";
import { FakeHomeserver } from "../test/support/fake-homeserver.ts";

/** The access token that reads all media. */
export const TOKEN = "bench";

/** What a peer's process says once it listens. */
export type PeerReady =
  | { readonly role: "homeserver"; readonly url: string; readonly media: readonly BenchMedia[] }
  | { readonly role: "icap"; readonly url: string };

export interface BenchMedia {
  readonly serverName: string;
  readonly mediaId: string;
  /** SHA-256 of its bytes, in unpadded base64. */
  readonly sha256: string;
}

if (process.argv[1] === import.meta.filename) {
  const [role, count, size] = process.argv.slice(2);
  const ready = role === "homeserver" ? await startHomeserver(Number(count), Number(size)) : await startIcap();
  process.send?.(ready);
  // Ends with the benchmark, however that ends.
  process.once("disconnect", () => process.exit());
}

/** Media that differ, out of one block of random bytes: each begins a little further on than the one before. */
async function startHomeserver(count: number, size: number): Promise<PeerReady> {
  const homeserver = await FakeHomeserver.start({ record: false });
  homeserver.addToken(TOKEN);
  const step = 64;
  const random = Buffer.alloc(size + count * step);
  for (let offset = 0; offset < random.length; offset += 1 << 24)
    randomBytes(Math.min(1 << 24, random.length - offset)).copy(random, offset);
  const media = Array.from({ length: count }, (_, index): BenchMedia => {
    const bytes = random.subarray(index * step, index * step + size);
    const sha256 = createHash("sha256").update(bytes).digest("base64").replace("=", "");
    return { ...homeserver.put(`media${index}`, { bytes }), sha256 };
  });
  return { role: "homeserver", url: homeserver.url, media };
}

async function startIcap(): Promise<PeerReady> {
  const server = new IcapServer({
    services: {
      clean: {
        table: { isTag: "bench" },
        handle: async ({ body }) => {
          for await (const _bytes of body);
          return { status: 204 };
        },
      },
    },
  });
  const { port } = await server.listen(0);
  return { role: "icap", url: `icap://127.0.0.1:${port}/clean` };
}
