/**
 * Paths that are a download to a server that takes them as they come, as Synapse does (it takes any file name behind the media ID), and that are
 * something else to whoever decodes them and follows the dots.
 * @param media `server/media`
 */
export const TRAVERSALS = (media: string): readonly string[] =>
  ["/_matrix/client/v1/media", "/_matrix/media/v3", "/_matrix/media/r0"].flatMap((path) => {
    const download = `${path}/download/${media}`;
    const up = (step: string, times: number, to: string): string =>
      `${download}/${Array.from({ length: times }, () => step).join("")}${to}`;
    return [
      // Out of the media API, into another part of the homeserver, into its uploads.
      ...[7, 8, 9].flatMap((times) =>
        ["..%2f", "..%2F", "%2e%2e%2f", ".%2E%2F", "%2e.%2f"].map((step) => up(step, times, "client%2fversions")),
      ),
      ...[5, 6, 7].map((times) => up("..%2f", times, "_matrix%2fclient%2fversions")),
      ...[4, 5, 6].map((times) => up("..%2f", times, "media%2fv3%2fupload")),
      ...[2, 3, 4].map((times) => up("..%2f", times, "upload")),
      ...[4, 5, 6].map((times) => up("..%2f", times, "v3%2fupload%2fx%2fy")),
      ...[4, 5, 6].map((times) => up("..%2f", times, "media_proxy%2fx")),
      up("..%2f", 12, "_matrix%2fclient%2fversions"),
      up("..%2f", 5, "..?x=y"),
      up("..%2f", 5, ".."),
      up("..%2f", 5, "%2e%2e#x"),
      // In absolute form, as to a forward proxy.
      `https://matrix.example.org${download}`,
      `http://127.0.0.1${up("..%2f", 12, "_matrix%2fclient%2fversions")}`,
      `https://x@y${up("%2e%2e%2f", 8, "client%2fversions")}`,
      `${download}/x%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f_matrix%2fclient%2fversions`,
      `${download}/..%2f.%2f..%2f%2f..%2f..%2f..%2f..%2f..%2f_matrix%2fclient%2fversions`,
    ];
  });
