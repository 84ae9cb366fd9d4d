/** Names of types: which ones mean the same, and the extension that goes with each. */
import type { DetectedType } from "./mime.ts";

export const UNKNOWN = "application/octet-stream";

/**
 * Names of one type: first the current libmagic's, then those of earlier ones and of file-type, which stand in the lists of the existing
 * scanners' users.
 */
const SAME_TYPE: readonly (readonly string[])[] = [
  ["application/vnd.microsoft.portable-executable", "application/x-dosexec", "application/x-msdownload"],
  ["application/x-executable", "application/x-pie-executable", "application/x-sharedlib", "application/x-elf"],
  ["application/vnd.rar", "application/x-rar", "application/x-rar-compressed"],
  ["application/gzip", "application/x-gzip"],
  ["application/zstd", "application/x-zstd"],
  ["application/x-ole-storage", "application/x-cfb", "application/cdfv2"],
  ["application/x-java-applet", "application/java-vm"],
  ["application/x-chrome-extension", "application/x-google-chrome-extension"],
  ["application/vnd.debian.binary-package", "application/x-deb"],
  ["application/vnd.sqlite3", "application/x-sqlite3"],
  ["application/vnd.ms-opentype", "font/otf"],
  ["font/sfnt", "font/ttf"],
  ["application/x-empty", "inode/x-empty"],
  ["text/rtf", "application/rtf"],
  ["text/xml", "application/xml"],
  ["text/javascript", "application/javascript", "application/x-javascript"],
  ["text/x-script.python", "text/x-python"],
  ["image/bmp", "image/x-ms-bmp"],
  ["image/vnd.microsoft.icon", "image/x-icon"],
  ["audio/x-wav", "audio/wav", "audio/vnd.wave"],
  ["audio/x-aiff", "audio/aiff"],
  ["audio/x-hx-aac-adts", "audio/aac"],
  ["audio/flac", "audio/x-flac"],
  ["video/x-msvideo", "video/vnd.avi"],
  ["video/x-matroska", "video/matroska"],
  ["video/x-ms-asf", "application/vnd.ms-asf", "audio/x-ms-asf"],
  ["video/mpeg", "video/mp1s", "video/mp2p"],
];

/** What the directory of an OLE container would tell, and it may lie anywhere in the file. */
const INSIDE_OLE = [
  "application/msword",
  "application/vnd.ms-excel",
  "application/vnd.ms-powerpoint",
  "application/vnd.ms-office",
  "application/vnd.ms-outlook",
  "application/vnd.ms-project",
  "application/vnd.visio",
  "application/x-msi",
  "application/x-hwp",
];

const EXTENSIONS: Readonly<Record<string, string>> = {
  "application/epub+zip": "epub",
  "application/gzip": "gz",
  "application/java-archive": "jar",
  "application/json": "json",
  "application/msword": "doc",
  "application/pdf": "pdf",
  "application/postscript": "ps",
  "application/vnd.android.package-archive": "apk",
  "application/vnd.microsoft.portable-executable": "exe",
  "application/vnd.ms-excel": "xls",
  "application/vnd.ms-powerpoint": "ppt",
  "application/vnd.oasis.opendocument.presentation": "odp",
  "application/vnd.oasis.opendocument.spreadsheet": "ods",
  "application/vnd.oasis.opendocument.text": "odt",
  "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
  "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
  "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
  "application/vnd.rar": "rar",
  "application/x-7z-compressed": "7z",
  "application/x-bzip2": "bz2",
  "application/x-iso9660-image": "iso",
  "application/x-java-applet": "class",
  "application/x-ms-shortcut": "lnk",
  "application/x-shockwave-flash": "swf",
  "application/x-tar": "tar",
  "application/x-xz": "xz",
  "application/zip": "zip",
  "application/zstd": "zst",
  "audio/amr": "amr",
  "audio/flac": "flac",
  "audio/midi": "mid",
  "audio/mpeg": "mp3",
  "audio/ogg": "ogg",
  "audio/x-aiff": "aif",
  "audio/x-hx-aac-adts": "aac",
  "audio/x-m4a": "m4a",
  "audio/x-wav": "wav",
  "image/avif": "avif",
  "image/bmp": "bmp",
  "image/gif": "gif",
  "image/heic": "heic",
  "image/heif": "heif",
  "image/jpeg": "jpg",
  "image/jxl": "jxl",
  "image/png": "png",
  "image/svg+xml": "svg",
  "image/tiff": "tif",
  "image/vnd.microsoft.icon": "ico",
  "image/webp": "webp",
  "message/rfc822": "eml",
  "text/calendar": "ics",
  "text/csv": "csv",
  "text/html": "html",
  "text/javascript": "js",
  "text/plain": "txt",
  "text/rtf": "rtf",
  "text/vcard": "vcf",
  "text/vtt": "vtt",
  "text/x-msdos-batch": "bat",
  "text/x-php": "php",
  "text/x-script.python": "py",
  "text/x-shellscript": "sh",
  "text/xml": "xml",
  "video/3gpp": "3gp",
  "video/3gpp2": "3g2",
  "video/mp4": "mp4",
  "video/mpeg": "mpg",
  "video/ogg": "ogv",
  "video/quicktime": "mov",
  "video/webm": "webm",
  "video/x-m4v": "m4v",
  "video/x-matroska": "mkv",
  "video/x-ms-asf": "asf",
  "video/x-msvideo": "avi",
};

const GROUP_OF = new Map(SAME_TYPE.flatMap((group) => group.map((name) => [name, group] as const)));

export interface Evidence {
  /** The first bytes. */
  readonly head: Buffer;
  /** Whether there are more. */
  readonly cut: boolean;
  /** What file-type made of them, when libmagic left it open. */
  readonly finer?: { readonly mime: string; readonly ext: string };
}

/**
 * The type under all its names. libmagic's name stays among them where file-type tells more: who blocks or allows application/zip with an
 * existing scanner means the JAR too.
 */
export function describeType(magic: string, { head, cut, finer }: Evidence): DetectedType {
  const found = finer?.mime ?? magic;
  const group = GROUP_OF.get(found) ?? [found];
  const mime = group[0] ?? found;
  const aliases = [...group.slice(1), ...(finer === undefined || magic === mime ? [] : [magic])];
  const mayBe = unseen(mime, head, cut);
  return {
    mime,
    extension: EXTENSIONS[mime] ?? (finer !== undefined && /^[a-z0-9]{1,8}$/.test(finer.ext) ? finer.ext : "bin"),
    ...(aliases.length === 0 ? {} : { aliases }),
    ...(mayBe.length === 0 ? {} : { mayBe }),
  };
}

function unseen(mime: string, head: Buffer, cut: boolean): readonly string[] {
  if (mime === "application/x-ole-storage") return INSIDE_OLE;
  // libmagic takes for JSON only what it has read to its end.
  if (mime === "text/plain" && cut && /^\s*[[{]/.test(head.toString("latin1"))) return ["application/json"];
  return [];
}
