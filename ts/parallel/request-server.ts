/**
 * Where the ranks' connections for requests arrive, in the leader's main thread.
 * @module
 */

import { Channel } from "./messages.js";
import { Reception, type ReceptionOptions } from "./reception.js";
import { RemoteRank } from "./remote-rank.js";

export class RequestServer {
  /** By rank: resolves when it has come. */
  readonly ranks: readonly Promise<RemoteRank>[];
  readonly reception: Reception;

  private constructor(reception: Reception, ranks: readonly Promise<RemoteRank>[]) {
    this.reception = reception;
    this.ranks = ranks;
  }

  /** @throws LongcatError COMM_ERROR: it cannot listen there */
  static async listen(options: Omit<ReceptionOptions, "port" | "channel">): Promise<RequestServer> {
    const arrived: ((rank: RemoteRank) => void)[] = [];
    const ranks = Array.from({ length: options.ranks }, (_, i) => new Promise<RemoteRank>((resolve) => (arrived[i] = resolve)));
    const reception = await Reception.open({ ...options, port: 0, channel: Channel.requests }, (number, connection) => {
      const rank = new RemoteRank(connection);
      // That it ends is the coordinator's to tell.
      connection.trust({ onFrame: (_, answer) => rank.receive(answer), onEnd: () => undefined });
      arrived[number]!(rank);
      return undefined;
    });
    return new RequestServer(reception, ranks);
  }
}
