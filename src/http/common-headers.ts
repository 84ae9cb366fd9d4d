/** On every answer: CORS as the existing scanners have it; and media is one reader's own, to be asked for anew each time. */
export const COMMON_HEADERS: Readonly<Record<string, string>> = {
  "access-control-allow-origin": "*",
  "access-control-allow-methods": "GET, POST, PUT, OPTIONS",
  "access-control-allow-headers": "Origin, X-Requested-With, Content-Type, Accept, Authorization",
  "cache-control": "private, no-store",
  "accept-ranges": "none",
};
