/** A homeserver's media repository, as small as one can be: what it holds is in memory, and it knows one user. */
import { once } from "node:events";
import { type IncomingMessage, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";

export interface StoredMedia {
  readonly bytes: Uint8Array;
  readonly contentType: string;
  readonly fileName: string;
  /** Served without a token too, as homeservers do with media from before Matrix 1.11. */
  readonly unauthenticated?: boolean;
}

export interface MediaRepository extends AsyncDisposable {
  readonly url: string;
}

/** Matrix specification v1.19, "Content Repository"; v3 is the deprecated way, without a token. */
const MEDIA_PATH = /^\/_matrix\/(client\/v1\/media|media\/v3)\/(?:download|thumbnail)\/([^/]+)\/([^/]+)$/;

/**
 * Listens on a free port of 127.0.0.1.
 * @param media by `server name/media ID`
 * @param token the one access token that is valid
 */
export async function startMediaRepository(media: ReadonlyMap<string, StoredMedia>, token: string): Promise<MediaRepository> {
  const server = createServer((request, response) => answer(request, response, media, token));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

function answer(request: IncomingMessage, response: ServerResponse, media: ReadonlyMap<string, StoredMedia>, token: string): void {
  const { pathname } = new URL(request.url ?? "", "http://localhost");
  const [, api, serverName, mediaId] = MEDIA_PATH.exec(pathname) ?? [];
  if (api === undefined) return refuse(response, 404, "M_UNRECOGNIZED", "Unrecognized request");
  const authenticated = api === "client/v1/media";
  const { authorization } = request.headers;
  if (authenticated && authorization === undefined) return refuse(response, 401, "M_MISSING_TOKEN", "Missing access token");
  if (authenticated && authorization !== `Bearer ${token}`) return refuse(response, 401, "M_UNKNOWN_TOKEN", "Unknown access token");
  const found = media.get(`${serverName}/${mediaId}`);
  if (found === undefined || !(authenticated || found.unauthenticated === true)) return refuse(response, 404, "M_NOT_FOUND", "Not found");
  response.writeHead(200, {
    "content-type": found.contentType,
    "content-length": found.bytes.length,
    "content-disposition": `inline; filename="${found.fileName}"`,
  });
  response.end(found.bytes);
}

function refuse(response: ServerResponse, status: number, errcode: string, error: string): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify({ errcode, error }));
}
