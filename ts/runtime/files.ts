/**
 * Safetensors files through the addon: mapped and checked, or a tensor of them quantised.
 * @module
 */

import { loadAddon } from "./addon.js";
import type { NativeMappedFile, NativeTensorEntry } from "./binding.js";
import { translateErrors } from "./native-error.js";

/**
 * Maps a safetensors file and checks its header.
 *
 * @throws LongcatError CHECKPOINT_INVALID naming the file and, where one is at fault, the tensor; NATIVE_MISSING
 */
export function openSafetensors(path: string): NativeMappedFile {
  return translateErrors(() => loadAddon().openSafetensors(path));
}

/**
 * Quantises a matrix of F32 or BF16 to block FP8: codes [rows, columns], scales [ceil(rows/128), ceil(columns/128)].
 *
 * @throws LongcatError CHECKPOINT_INVALID for another type, or an infinite weight
 */
export function quantizeFp8(file: NativeMappedFile, entry: NativeTensorEntry): { data: Uint8Array; scale: Float32Array } {
  return translateErrors(() => loadAddon().quantizeFp8(file, entry));
}
