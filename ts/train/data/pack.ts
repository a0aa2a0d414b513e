/**
 * Documents packed into rows of equal length: a batch has so many tokens, however long the documents are.
 * @module
 */

import type { TrainSequence } from "../batch.js";
import type { EncodedDocument } from "./encode.js";

/** Sequences that together have at most a row's tokens. No attention goes from one to another. */
export type Row = readonly TrainSequence[];

/**
 * Rows of whole documents: each goes where it leaves the least room, into a new row if there is none for it. A document that is longer than
 * a row is cut.
 */
export function packDocuments(documents: readonly EncodedDocument[], length: number): Row[] {
  const rows: TrainSequence[][] = [];
  /** By tokens that are free: rows. */
  const free: TrainSequence[][][] = Array.from({ length: length + 1 }, () => []);
  for (const piece of documents.flatMap((document) => cut(sequenceOf(document), length))) {
    const need = piece.tokens.length;
    let room = need;
    while (room <= length && free[room]!.length === 0) room += 1;
    let row = free[room]?.pop();
    if (!row) {
      rows.push((row = []));
      room = length;
    }
    row.push(piece);
    free[room - need]!.push(row);
  }
  return rows;
}

/** Rows of one stream, in which documents follow one another: attention goes across, and what is over at the end is left. */
export function packStream(documents: readonly EncodedDocument[], length: number): Row[] {
  const stream: EncodedDocument = { ids: documents.flatMap(({ ids }) => ids), learnFrom: 0 };
  const learnt = documents.flatMap(({ ids, learnFrom }) => ids.map((_, i) => i >= learnFrom));
  const { tokens, targets } = sequenceOf(stream);
  const counted = targets.map((target, i) => (learnt[i + 1] ? target : -1));
  return cut({ tokens, targets: counted }, length)
    .filter((row) => row.tokens.length === length)
    .map((row) => [row]);
}

/** Each token but the last, with the next one as its target. */
function sequenceOf({ ids, learnFrom }: EncodedDocument): TrainSequence {
  return { tokens: ids.slice(0, -1), targets: ids.slice(1).map((id, i) => (i + 1 >= learnFrom ? id : -1)) };
}

/** Pieces of at most `length` tokens, but for those from which nothing is learnt. */
function cut({ tokens, targets }: TrainSequence, length: number): TrainSequence[] {
  const count = Math.ceil(tokens.length / length);
  return Array.from({ length: count }, (_, i) => ({
    tokens: tokens.slice(i * length, (i + 1) * length),
    targets: targets.slice(i * length, (i + 1) * length),
  })).filter((piece) => piece.targets.some((target) => target >= 0));
}
