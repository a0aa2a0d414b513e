/**
 * The batches of a run on text. Row after row they are a function of the run, its seed and the files that it names.
 *
 * Each source is packed into rows once. Its rows come in another random order each time they have all been there; the mixture says which
 * source is next.
 * @module
 */

import { createHash } from "node:crypto";

import { invalid } from "../../checks.js";
import type { Batch } from "../batch.js";
import type { TrainData } from "../data.js";
import type { BatchCapacity } from "../memory.js";
import { drawsOf, shuffled } from "../random.js";
import type { Document } from "./document.js";
import { encodeDocument, textsOf } from "./encode.js";
import { Mixture } from "./mixture.js";
import type { DataOptions } from "./options.js";
import { packDocuments, packStream, type Row } from "./pack.js";
import { readSources } from "./sources.js";
import { BUNDLED, formOf, loadForm, type TextForm, type TokenizerFiles, tokenizerFiles, trainTokenizer } from "./tokenizer.js";

/** Of the run, beside its `data`. */
export interface TextRun {
  seed: number;
  /** Rows of a batch. */
  sequences: number;
  vocabSize: number;
}

/** A source's rows. */
interface SourceRows {
  train: Row[];
  heldOut: Row[];
}

/** Text to train on. */
export class TextData implements TrainData {
  readonly files: TokenizerFiles;
  readonly capacity: BatchCapacity;
  readonly digest: string;
  readonly #run: TextRun;
  readonly #sources: SourceRows[];
  readonly #mixture: Mixture;
  /** Orders of a source's rows, by source and round; only a run's current rounds are asked for. */
  readonly #orders = new Map<string, number[]>();

  private constructor(options: DataOptions, run: TextRun, files: TokenizerFiles, sources: SourceRows[]) {
    this.#run = run;
    this.#sources = sources;
    this.#mixture = new Mixture(options.sources.map(({ weight }) => weight));
    this.files = files;
    this.digest = digestOf(files, sources);
    const most = sources.flatMap(({ train, heldOut }) => [...train, ...heldOut]).reduce((max, row) => Math.max(max, row.length), 0);
    const { sequences } = run;
    this.capacity = { tokens: sequences * options.length, sequences: sequences * most, length: options.length };
  }

  /**
   * Reads, makes, filters, tokenises and packs it all.
   *
   * @throws LongcatError OPTION_INVALID for files that cannot be read, sources with too little and a vocabulary too small;
   *   TOKENIZER_INVALID
   */
  static async open(options: DataOptions, run: TextRun): Promise<TextData> {
    const sources = readSources(options, run.seed);
    const files =
      options.tokenizer === null
        ? await trainedOn(
            sources.flatMap(({ train }) => train),
            run.vocabSize,
          )
        : tokenizerFiles(options.tokenizer);
    const form = await formOf(files);
    form.tokenizer.checkAgainst(run.vocabSize);
    const rows = sources.map(({ train, heldOut }, i) => {
      const packed = { train: rowsOf(train, form, options), heldOut: rowsOf(heldOut, form, options) };
      for (const [part, of] of Object.entries(packed)) {
        if (of.length === 0)
          throw invalid(`data.sources[${i}]`, options.sources[i], `a source with enough for a row: its part ${part} has not that much`);
      }
      return packed;
    });
    return new TextData(options, run, files, rows);
  }

  batch(index: number): Batch {
    return this.#rows(index).flatMap((row) => {
      const { source, nth } = this.#mixture.choice(row);
      const { train } = this.#sources[source]!;
      return train[this.#order(source, Math.floor(nth / train.length))[nth % train.length]!]!;
    });
  }

  /** As many rows, in the same mixture; where a source has too few they come again. */
  heldOut(index: number): Batch {
    return this.#rows(index).flatMap((row) => {
      const { source, nth } = this.#mixture.choice(row);
      const { heldOut } = this.#sources[source]!;
      return heldOut[nth % heldOut.length]!;
    });
  }

  #rows(batch: number): number[] {
    const { sequences } = this.#run;
    return Array.from({ length: sequences }, (_, row) => batch * sequences + row);
  }

  #order(source: number, round: number): number[] {
    const name = `${source} ${round}`;
    let order = this.#orders.get(name);
    if (!order) {
      order = shuffled(this.#sources[source]!.train.length, drawsOf(this.#run.seed, source * 2 ** 32 + round));
      this.#orders.delete(`${source} ${round - 1}`);
      this.#orders.set(name, order);
    }
    return order;
  }
}

/** A tokenizer of what is trained on, and of nothing that is held out. */
async function trainedOn(documents: readonly Document[], size: number): Promise<TokenizerFiles> {
  const form = await loadForm(BUNDLED);
  return trainTokenizer(
    documents.flatMap((document) => textsOf(document, form)),
    size,
  );
}

function rowsOf(documents: readonly Document[], form: TextForm, { length, packing, learn }: DataOptions): Row[] {
  const encoded = documents.flatMap((document) => encodeDocument(document, form, learn));
  return packing === "documents" ? packDocuments(encoded, length) : packStream(encoded, length);
}

/** Of all that a run is given: another digest, and a run that goes on would not be the same one. */
function digestOf(files: TokenizerFiles, sources: readonly SourceRows[]): string {
  const hash = createHash("sha256");
  for (const [name, bytes] of files) hash.update(name).update(bytes);
  for (const { train, heldOut } of sources) {
    for (const row of [...train, ...heldOut]) {
      for (const { tokens, targets } of row) hash.update(Int32Array.from([tokens.length, ...tokens, ...targets]));
    }
  }
  return hash.digest("hex");
}
