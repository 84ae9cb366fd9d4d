import type { LookupFunction } from "node:net";
import { IcapError } from "../errors.ts";
import { Connection, type ConnectionOwner, asError, isTimeoutNotice } from "./connection.ts";
import { type Limit, NO_LIMIT } from "./deadline.ts";
import { type DialRules, dial } from "./dial.ts";
import type { Target } from "./target.ts";
import { tlsIdentity } from "./tls-identity.ts";
import type { IcapTls, PoolStats } from "./types.ts";
import { within } from "./within.ts";

export interface PoolRules {
  readonly maxConnections: number;
  readonly reservedConnections: number;
  /** Milliseconds. */
  readonly connectTimeout: number;
  readonly idleTimeout: number;
  /** Ordinary callers that may stand in line. */
  readonly maxWaiting: number;
  /** For a target by `icaps` alone. */
  readonly tls: IcapTls | undefined;
  /** In place of the system's resolver; asked anew for each connection. */
  readonly lookup?: LookupFunction;
}

/** Milliseconds for which no connection is kept after bytes have come that nobody asked for. */
const DISTRUST = 600_000;

/** Milliseconds since any fixed moment, and who is told of bytes that nobody asked for. */
export interface PoolLink {
  readonly clock: () => number;
  readonly unsolicited: (() => void) | undefined;
}

interface Waiter {
  readonly priority: boolean;
  enter(): void;
  refuse(error: Error): void;
}

export interface ConnectionRequest {
  /** A new one in any case. */
  readonly fresh: boolean;
  readonly signal: AbortSignal;
  /** For what a new one takes, beside the pool's own limits; none by default. */
  readonly limit?: Limit;
}

interface Lender {
  connection(request: ConnectionRequest): Connection | Promise<Connection>;
  keep(connection: Connection): void;
  returned(priority: boolean): void;
}

/** The right to use one connection. Every connection goes back by `keep`, unless it was destroyed. */
export class Lease {
  readonly #lender: Lender;
  readonly #priority: boolean;
  #held = true;

  constructor(lender: Lender, priority: boolean) {
    this.#lender = lender;
    this.#priority = priority;
  }

  /**
   * The one idle connection that was used last, or a new one.
   * @throws IcapError `closed`, `connect_failed`, `timeout`; the signal's reason.
   */
  connection(request: ConnectionRequest): Connection | Promise<Connection> {
    return this.#lender.connection(request);
  }

  keep(connection: Connection): void {
    this.#lender.keep(connection);
  }

  /** Ends it all. Idempotent. */
  release(): void {
    if (!this.#held) return;
    this.#held = false;
    this.#lender.returned(this.#priority);
  }
}

/**
 * Connections to one service: never more than `limit` at once, those being made and the idle ones included. Past that, callers wait in
 * line, first come, first served, bounded by their own signals; priority callers before the others. The line of ordinary callers has an end.
 *
 * All of them are to one target under one TLS identity, and nothing of TLS is kept beyond a connection. Idle ones, which hold a thread in many a
 * server, are as many as were needed at once within the last `idleTimeout`: the one used last is taken first, so the surplus grows old. While the
 * server is distrusted, there are none.
 */
export class ConnectionPool {
  readonly #target: Target;
  readonly #rules: PoolRules;
  readonly #dialRules: DialRules;
  /** Every connection that is open, and who has it while it is idle. */
  readonly #open = new Map<Connection, ConnectionOwner>();
  /** Used last, taken first: the others grow old and are closed. */
  readonly #idle: Connection[] = [];
  readonly #line: { readonly priority: Waiter[]; readonly ordinary: Waiter[] } = { priority: [], ordinary: [] };
  readonly #busy = { priority: 0, ordinary: 0 };
  readonly #closing = new AbortController();
  readonly #link: PoolLink;
  readonly #lender: Lender = {
    connection: (request) => {
      this.#closing.signal.throwIfAborted();
      return (request.fresh ? undefined : this.#idle.pop()) ?? this.#connect(request);
    },
    keep: (connection) => this.#keep(connection),
    returned: (priority) => {
      this.#busy[priority ? "priority" : "ordinary"]--;
      this.#admit();
    },
  };
  #dialing = 0;
  #limit: number;
  #distrustedUntil = Number.NEGATIVE_INFINITY;

  /** @throws TypeError for TLS settings that can't be used, or that a target in the clear would leave unheeded. */
  constructor(target: Target, rules: PoolRules, link: PoolLink = { clock: () => performance.now(), unsolicited: undefined }) {
    if (!target.secure && rules.tls !== undefined) throw new TypeError("tls is for an icaps:// URL alone");
    this.#target = target;
    this.#rules = rules;
    this.#link = link;
    const identity = target.secure ? tlsIdentity(target, rules.tls ?? {}) : undefined;
    this.#dialRules = { timeout: rules.connectTimeout, identity, lookup: rules.lookup };
    this.#limit = rules.maxConnections;
  }

  /** Connections that ordinary callers may use at once. */
  get capacity(): number {
    return Math.max(1, this.#limit - this.#rules.reservedConnections);
  }

  get stats(): PoolStats {
    return {
      limit: this.#limit,
      open: this.#open.size + this.#dialing,
      idle: this.#idle.length,
      busy: this.#busy.priority + this.#busy.ordinary,
      waiting: this.#line.priority.length + this.#line.ordinary.length,
    };
  }

  /** Aborted when the pool is closed. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /** The server sent bytes that nobody asked for, not long ago: on a kept connection they may be taken for the answer to what is asked next. */
  get distrusts(): boolean {
    return this.#link.clock() < this.#distrustedUntil;
  }

  /** It did so now. */
  distrust(): void {
    this.#distrustedUntil = this.#link.clock() + DISTRUST;
    for (const connection of this.#idle.splice(0)) connection.destroy();
    this.#link.unsolicited?.();
  }

  /** What the server allows; the configured maximum holds all the same. */
  allow(maxConnections: number | undefined): void {
    this.#limit = Math.max(1, Math.min(this.#rules.maxConnections, maxConnections ?? this.#rules.maxConnections));
    const surplus = Math.max(0, this.#open.size + this.#dialing - this.#limit);
    for (const oldest of this.#idle.splice(0, surplus)) oldest.destroy();
    this.#admit();
  }

  /** A promise for those that have to wait. @throws IcapError `closed`, `busy` (never for priority callers); the signal's reason. */
  lease(priority: boolean, signal: AbortSignal): Lease | Promise<Lease> {
    signal.throwIfAborted();
    this.#closing.signal.throwIfAborted();
    const kind = priority ? "priority" : "ordinary";
    if (this.#line[kind].length === 0 && this.#hasRoom(priority)) {
      this.#busy[kind]++;
      return new Lease(this.#lender, priority);
    }
    if (!priority && this.#line.ordinary.length >= this.#rules.maxWaiting) throw this.#lineIsFull();
    return this.#wait(priority, signal);
  }

  /** Destroys all connections and refuses all callers. Resolves when every socket is closed. */
  async close(): Promise<void> {
    const closed = [...this.#open.keys()].map((connection) => connection.closed);
    const error = new IcapError("closed", "the ICAP service was closed");
    this.#closing.abort(error);
    for (const waiter of [...this.#line.priority, ...this.#line.ordinary]) waiter.refuse(error);
    this.#idle.length = 0;
    for (const connection of this.#open.keys()) connection.fail(error);
    await Promise.all(closed);
  }

  #lineIsFull(): IcapError {
    return new IcapError("busy", `${this.#line.ordinary.length} scans wait for a connection to ${this.#target.authority} already`);
  }

  #hasRoom(priority: boolean): boolean {
    if (this.#busy.priority + this.#busy.ordinary >= this.#limit) return false;
    return priority || this.#busy.ordinary < this.capacity;
  }

  /** The one who admits counts the newcomer as busy, so that nobody slips in between. */
  #admit(): void {
    for (;;) {
      const priority = this.#line.priority[0];
      const next = priority ?? this.#line.ordinary[0];
      if (next === undefined || !this.#hasRoom(next.priority)) return;
      this.#busy[next.priority ? "priority" : "ordinary"]++;
      next.enter();
    }
  }

  #wait(priority: boolean, signal: AbortSignal): Promise<Lease> {
    const line = this.#line[priority ? "priority" : "ordinary"];
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        line.splice(line.indexOf(waiter), 1);
        signal.removeEventListener("abort", abort);
      };
      const waiter: Waiter = {
        priority,
        enter: () => {
          leave();
          resolve(new Lease(this.#lender, priority));
        },
        refuse: (error) => {
          leave();
          reject(error);
        },
      };
      const abort = (): void => waiter.refuse(asError(signal.reason));
      line.push(waiter);
      signal.addEventListener("abort", abort, { once: true });
    });
  }

  async #connect({ signal, limit = NO_LIMIT }: ConnectionRequest): Promise<Connection> {
    await this.#makeRoom();
    this.#dialing++;
    try {
      const socket = await within(limit, "the whole answer did not come", [signal, this.#closing.signal], (either) =>
        dial(this.#target, this.#dialRules, either),
      );
      const connection = new Connection(socket);
      this.#open.set(connection, this.#resting(connection));
      void connection.closed.then(() => this.#open.delete(connection));
      if (this.#closing.signal.aborted) connection.destroy();
      this.#closing.signal.throwIfAborted();
      return connection;
    } finally {
      this.#dialing--;
    }
  }

  /** A socket counts until it is closed; only then may another one take its place. */
  async #makeRoom(): Promise<void> {
    while (this.#open.size + this.#dialing >= this.#limit) {
      const oldest = this.#idle.shift();
      oldest?.destroy();
      const leaving = oldest ?? [...this.#open.keys()].find((connection) => !connection.usable);
      // The limit was lowered while more were busy.
      if (leaving === undefined) return;
      await leaving.closed;
    }
  }

  #keep(connection: Connection): void {
    const resting = this.#open.get(connection);
    if (!connection.usable || resting === undefined) return;
    if (this.#closing.signal.aborted || this.distrusts || this.#open.size + this.#dialing > this.#limit) {
      connection.destroy();
      return;
    }
    connection.rest(resting, this.#rules.idleTimeout);
    this.#idle.push(connection);
  }

  #resting(connection: Connection): ConnectionOwner {
    const drop = (): void => {
      const at = this.#idle.indexOf(connection);
      if (at !== -1) this.#idle.splice(at, 1);
      connection.destroy();
    };
    const data = (bytes: Buffer): void => {
      drop();
      if (!isTimeoutNotice(bytes)) this.distrust();
    };
    return { data, drained: () => undefined, gone: drop, late: drop };
  }
}
