/** ICAP (RFC 3507) for scanning: a client whose "clean" is proved, and a small server. See README.md. */
export { IcapError, type IcapErrorCode } from "./errors.ts";
export { judge, type AnswerFacts, type HeaderReader, type Reading, type Verdict } from "./verdict.ts";
export { PROFILE_NAMES, profileOf, readingOf, type Profile, type ProfileName } from "./profiles.ts";
export { printable } from "./verdict-text.ts";
export { isFreeField } from "./client/fields.ts";
export { IcapService } from "./client/service.ts";
export type {
  IcapMethod,
  IcapScanRequest,
  IcapScanResult,
  IcapServiceOptions,
  IcapTimeouts,
  IcapTls,
  PoolStats,
  ServiceInfo,
} from "./client/types.ts";
export { DEFAULT_LIMITS, type IcapLimits } from "./codec/limits.ts";
export { HeaderBlock } from "./codec/headers.ts";
export type { HttpHead, HttpResponseHead } from "./codec/head.ts";
export type { HeaderFields } from "./codec/serialize.ts";
export { IcapServer, type IcapServerOptions } from "./server/server.ts";
export type { HttpMessage, IcapHandler, IcapReply, IcapRequest, ServiceTable } from "./server/types.ts";
export { signatureService, type Signature, type SignatureServiceOptions } from "./server/signature-service.ts";
