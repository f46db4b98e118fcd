"""Planted faults: each is one small, wrong edit of the package that some test must notice.

The first ones are mistakes seen in public copies of DropKey.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    """Replace ``right`` by ``wrong`` in ``file`` (below src/dropkey); ``tests`` are those expected to notice."""

    name: str
    file: str
    right: str
    wrong: str
    tests: str = "tests/ops/test_attention.py"


MASKS = "tests/test_patterns.py"
USERS_PATTERNS = "tests/test_patterns_of_users.py"
OWN_SOFTMAX = "tests/adapters/test_own_softmax.py"
HANDLE = "tests/adapters/test_handle.py"
TIMM = "tests/adapters/test_timm.py"
VERIFY = "tests/adapters/test_verify.py"
WINDOWS = "tests/adapters/test_windows.py"
IN_PLACE = "tests/adapters/test_in_place.py"
PRECISION = "tests/adapters/test_precision.py"
MIXING = "tests/adapters/test_mixing.py"
LISTENERS = "tests/adapters/test_listeners.py"
REATTENTION = "tests/ops/test_reattention.py"
MIXED = "tests/ops/test_mixed_attention.py"
TILES = "tests/ops/test_tile_gemm.py"
SETTINGS = "tests/adapters/test_settings.py"
OFFICIAL = "tests/models/test_official.py"
CORE = "tests/test_core_faults.py"
SHAPE = "tests/adapters/test_by_shape.py"
ORDER = "tests/adapters/test_block_order.py"
MEASURES = "tests/diagnostics/test_measures.py"
REPORTED = "tests/tasks/classification/test_numbers_reported.py"
USE = "tests/test_faults_of_use.py"
PICTURE = "tests/data/test_picture.py"
TREE = "tests/data/test_image_tree.py"
WEIGHTS = "tests/models/test_weights.py"
YAML = "tests/runs/test_yaml_file.py"
COMMANDS = "tests/cli/test_command_faults.py"
CAPTURE = "tests/diagnostics/test_capture.py"
ACTING = "tests/cli/test_acting_options.py"
NEW_TASK = "tests/tasks/test_new_task.py"
UNFUSED = "tests/diagnostics/test_unfused.py"
SEEN_WINDOWS = "tests/diagnostics/test_windows.py"
DIAGNOSE = "tests/diagnostics/test_diagnose.py"
RELEVANCE = "tests/diagnostics/test_relevance.py"
CALLBACK = "tests/diagnostics/test_callback.py"
AUDIT = "tests/diagnostics/test_audit.py"
PAGE = "tests/diagnostics/test_page.py"
BROWSER = "tests/diagnostics/test_page_in_browser.py"
MESH_METRICS = "tests/tasks/mesh/test_metrics.py"
METRO = "tests/tasks/mesh/test_metro.py"
BODIES = "tests/data/bodies/test_sampling.py"
HUMBI = "tests/data/test_humbi.py"
TIMM_DROPOUT = "tests/models/test_timm_dropout.py"
CONSISTENCY = "tests/tasks/classification/test_consistency.py"
TOP_SHARE = "tests/adapters/test_top_share.py"
LOCALITY = "tests/adapters/test_locality.py"
PAIR_AP = "tests/tasks/interaction/metrics"
QPIC = "tests/tasks/interaction/qpic"
TUNE = "tests/experiments/tuning/test_tune.py"
TRIALS = "tests/experiments/tuning/test_trials.py"
FOUND = "tests/experiments/tuning/test_check.py"
SPACE = "tests/experiments/tuning/test_space.py"
DETECTION_AP = "tests/tasks/detection/test_average_precision.py"
DETECTORS = "tests/tasks/detection/test_families.py"
DETECTION_OPTIONS = "tests/tasks/detection/test_options.py"
BOXES = "tests/data/test_box_transforms.py"
BOXED = "tests/data/test_coco_and_yolo.py"
STATISTICS = "tests/experiments/test_statistics.py"
ARMS_TABLE = "tests/experiments/test_comparison_table.py"
ARMS_PAGE = "tests/experiments/test_comparison_page_in_browser.py"

FAULTS = [
    # Seen in public copies.
    Fault(
        "-1e-12 for -1e12: nothing is dropped",
        "ops/reference.py",
        "torch.where(visible.any(-1, keepdim=True), -torch.inf, 0.0)",
        "logits - 1e-12",
    ),
    Fault(
        "mask after the softmax: dropout without rescaling",
        "ops/reference.py",
        "        visible = keep & allowed\n",
        "        return torch.where(allowed, logits, -torch.inf).softmax(-1) * keep\n",
    ),
    Fault("no training guard", "adapters/slots/drop_slot.py", "and (training or self.sampling)", "", TIMM),
    Fault("scale from the token axis", "ops/operands.py", "query.shape[3] ** -0.5", "query.shape[2] ** -0.5"),
    Fault(
        "finite number added in half precision",
        "ops/reference.py",
        "    dtype = torch.promote_types(call.query.dtype, torch.float32)",
        "    dtype = call.query.dtype",
    ),
    Fault(
        "padding milder than the drop",
        "ops/reference.py",
        "logits = torch.where(allowed, logits, -torch.inf)",
        "logits = torch.where(allowed, logits, -1.0)",
    ),
    Fault(
        "one mask for all queries",
        "patterns/element.py",
        "bits.all_queries(geometry, seed)",
        "bits.one_query(seed).expand(geometry.num_queries, 1)",
        MASKS,
    ),
    Fault(
        "one mask for all heads",
        "patterns/bits.py",
        "heads = torch.arange(geometry.batch * geometry.num_heads, device=seed.device)",
        "heads = torch.arange(geometry.batch, device=seed.device).repeat_interleave(geometry.num_heads)",
        MASKS,
    ),
    Fault(
        "drop and attn_drop both on",
        "adapters/own_dropout.py",
        "            _set_rate(module, name, 0.0)",
        "            pass",
        TIMM,
    ),
    # Masks.
    Fault("mask polarity", "patterns/element.py", "return ~bits.dropped_16(", "return bits.dropped_16(", MASKS),
    Fault("high half first", "patterns/bits.py", "(word & 0xFFFF, word >> 16)", "(word >> 16, word & 0xFFFF)", MASKS),
    Fault("six rounds", "philox.py", "NUM_ROUNDS = 7", "NUM_ROUNDS = 6", "tests/test_philox.py"),
    Fault("half of the seed", "philox.py", "(seed >> 32) & _LOW_32", "seed & _LOW_32", "tests/test_philox.py"),
    Fault(
        "rounded down threshold", "patterns/bits.py", "torch.round(drop_ratio * 65536)", "(drop_ratio * 65535)", MASKS
    ),
    Fault(
        "stream shared by patterns",
        "patterns/column.py",
        "stream: ClassVar[int] = 1",
        "stream: ClassVar[int] = 0",
        MASKS,
    ),
    Fault("lowest ranks kept", "patterns/token.py", "descending=True", "descending=False", MASKS),
    Fault("no key kept", "patterns/token.py", "* geometry.num_keys).clamp(min=1)", "* geometry.num_keys)", MASKS),
    Fault(
        "token per head", "patterns/token.py", "bits.heads(geometry, seed)[:, :1]", "bits.heads(geometry, seed)", MASKS
    ),
    Fault(
        "seed probability is the ratio",
        "patterns/windows.py",
        "    return (low + high) / 2",
        "    return drop_ratio",
        MASKS,
    ),
    Fault("cross drops squares", "patterns/windows.py", "-1) | _smear(seeds, self.window_size, -2)", "-1)", MASKS),
    Fault(
        "prefix tokens never dropped",
        "patterns/grid.py",
        "Element().keep(seed, drop_ratio, prefix)",
        "keep_patches[..., :1] | True",
        MASKS,
    ),
    Fault("ranks draw alike", "philox.py", "if rank else seed", "if rank < 0 else seed", "tests/test_philox.py"),
    # Arithmetic.
    Fault("scale forgotten", "ops/reference.py", "call.scale * (call.query.to(dtype)", "(call.query.to(dtype)"),
    Fault("scale not handed on", "ops/sdpa.py", "attn_mask=mask, scale=call.scale", "attn_mask=mask"),
    Fault(
        "bias forgotten",
        "ops/sdpa.py",
        "mask = torch.where(has_kept, bias, 0.0)",
        "mask = torch.where(has_kept, bias * 0, 0.0)",
    ),
    Fault("smallest number not forbidden", "ops/call.py", "<= FORBIDDEN)", "< -torch.inf)"),
    Fault("causal forgotten", "ops/call.py", "if self.is_causal:", "if False:"),
    Fault("causal aligned at the other end", "ops/call.py", ".tril()", ".tril(num_keys - num_queries)"),
    Fault("heads tiled", "ops/call.py", "t.repeat_interleave(repeats, dim=1)", "t.repeat(1, repeats, 1, 1)"),
    Fault(
        "empty row gives zeros",
        "ops/sdpa.py",
        "torch.where(has_kept, out, _mean_of_allowed(call.value, allowed))",
        "torch.where(has_kept, out, 0.0)",
    ),
    Fault(
        "empty row sees forbidden values",
        "ops/sdpa.py",
        "_mean_of_allowed(call.value, allowed)",
        "_mean_of_allowed(call.value, None)",
    ),
    Fault(
        "a gradient for dropped keys",
        "ops/reference.py",
        "torch.where(visible.any(-1, keepdim=True), -torch.inf, 0.0)",
        "torch.where(visible.any(-1, keepdim=True), -torch.inf, logits * 1e-3)",
    ),
    Fault(
        "the row without keys is NaN",
        "ops/reference.py",
        "torch.where(has_key, logits.softmax(-1), 0.0)",
        "logits.softmax(-1)",
    ),
    Fault(
        "ratio 0 takes another way",
        "ops/dispatch.py",
        "call.is_empty or (call.draw is None and backend",
        "call.is_empty or (backend is None and backend",
    ),
    Fault(
        "seed ignored",
        "ops/call.py",
        "draw_seed(device) if seed is None else seed_tensor(seed, device)",
        "draw_seed(device)",
    ),
    Fault(
        "sum not detached",
        "ops/dropout.py",
        "kept.sum(-1, keepdim=True).detach()",
        "kept.sum(-1, keepdim=True)",
        "tests/ops/test_dropout.py",
    ),
    # Life in a model.
    Fault("schedule over sites", "adapters/plan.py", "ratios[f.block_index]", "ratios[found.index(f) // 2]", TIMM),
    Fault(
        "growth for decay",
        "schedules.py",
        "(depth - 1 - index) / (depth - 1)",
        "index / (depth - 1)",
        "tests/test_schedules.py",
    ),
    Fault("two seeds in one pass", "adapters/forward_pass.py", "if key not in self.seeds:", "if True:", TIMM),
    Fault(
        "no cry when nothing was called",
        "adapters/class_swap.py",
        "if not forward_pass.num_calls:",
        "if False:",
        HANDLE,
    ),
    Fault("disable forgets", "adapters/handle.py", "            slot.enabled = enabled", "            pass", TIMM),
    Fault("own dropout not restored", "adapters/own_dropout.py", "_set_rate(module, name, rate)", "pass", TIMM),
    Fault(
        "applied twice",
        "adapters/apply.py",
        "elif (rival := site.slots.rival(slot_class)) is not None:",
        "elif False:",
        HANDLE,
    ),
    Fault("settings act at once", "adapters/apply.py", "slot.enabled = plan.enabled", "pass", SETTINGS),
    Fault("settings of the schedule", "adapters/settings.py", "name: slot.drop_ratio for", "name: 0.0 for", SETTINGS),
    Fault(
        "ratios without memory",
        "adapters/slots/drop_slot.py",
        'dtype=torch.float64, device="cpu"',
        "dtype=torch.float64",
        HANDLE,
    ),
    Fault(
        "a draw for each key of a window",
        "patterns/windows.py",
        "max(1.0, geometry.num_keys / self.num_cells)",
        "geometry.num_keys",
        USERS_PATTERNS,
    ),
    Fault(
        "a draw for each query of a column",
        "patterns/column.py",
        "num_heads * geometry.num_keys",
        "num_heads * geometry.num_keys * geometry.num_queries",
        USERS_PATTERNS,
    ),
    Fault("whole keys forgotten", "patterns/token.py", "return 1 / geometry.num_keys", "return 2**-16", USERS_PATTERNS),
    Fault(
        "a tolerance of everything", "patterns/pattern.py", "_NUM_SIGMAS = 6.0", "_NUM_SIGMAS = 60.0", USERS_PATTERNS
    ),
    Fault("two patterns of one stream", "patterns/registry.py", "or owner is not None:", "or False:", USERS_PATTERNS),
    Fault(
        "a name taken over", "patterns/registry.py", "if name in PATTERNS and not", "if False and not", USERS_PATTERNS
    ),
    Fault(
        "a softmax by keyword runs past",
        "adapters/routing.py",
        "zip(_SOFTMAXES[func], args, strict=False)) | kwargs",
        "zip(_SOFTMAXES[func], args, strict=False))",
        OWN_SOFTMAX,
    ),
    Fault("nn.Softmax is not seen", "adapters/routing.py", "    F.softmax: (", "    F.gumbel_softmax: (", OWN_SOFTMAX),
    Fault("folded heads are images", "adapters/class_swap.py", "num_heads_of(module) or 1)", "1)", OWN_SOFTMAX),
    Fault(
        "its own dropout beside ours", "adapters/routing.py", "if func is F.dropout and", "if False and", OWN_SOFTMAX
    ),
    Fault("verify compares nothing", "adapters/slots/dropkey_proof.py", "if not error <= bound:", "if False:", VERIFY),
    Fault("verify leaves training mode on", "adapters/restoring.py", "module.training = training", "pass", VERIFY),
    Fault("sampling stays on", "alignment.py", "slot.sampling = False", "pass", "tests/test_alignment.py"),
    Fault(
        "deviation of the population",
        "alignment.py",
        "squares / (samples - 1)",
        "squares / samples",
        "tests/test_alignment.py",
    ),
    # Re-attention.
    Fault(
        "theta transposed", "ops/reattention.py", "theta[:, :, None, None]", "theta.mT[:, :, None, None]", REATTENTION
    ),
    Fault(
        "bias of theta forgotten", "ops/reattention.py", "weight.flatten(1), bias)", "weight.flatten(1))", REATTENTION
    ),
    Fault(
        "a gate that starts open",
        "ops/reattention.py",
        "nn.Parameter(torch.zeros(1",
        "nn.Parameter(torch.ones(1",
        MIXING,
    ),
    Fault(
        "mixed maps for the change",
        "ops/reattention.py",
        "(super().forward(attn) - attn)",
        "super().forward(attn)",
        MIXING,
    ),
    Fault("padding seen again", "ops/reattention.py", "change.where(allowed, 0)", "change", MIXING),
    Fault(
        "a checkpoint counts a batch twice", "ops/statistics.py", "if not is_recomputing():", "if True:", REATTENTION
    ),
    Fault(
        "mixing in training only",
        "adapters/slot.py",
        "return self.enabled\n",
        "return self.enabled and training\n",
        MIXING,
    ),
    Fault(
        "mixing before the drop",
        "adapters/slots/reattention.py",
        "attn = weights(at.call, at.call.keep())",
        "attn = weights(at.call, None)",
        MIXING,
    ),
    Fault(
        "maps of before the drop",
        "adapters/record.py",
        "attn_map = weights(at.call, at.call.keep())",
        "attn_map = weights(at.call, None)",
        "tests/adapters/test_maps.py",
    ),
    Fault(
        "a listener for another",
        "adapters/listeners.py",
        "_site(module).listeners += (listener,)",
        "_site(module).listeners = (listener,)",
        LISTENERS,
    ),
    Fault(
        "the first listener that leaves takes all along",
        "adapters/listeners.py",
        "tuple(other for other in site.listeners if other is not listener)",
        "()",
        LISTENERS,
    ),
    Fault(
        "the last listener leaves a trace",
        "adapters/listeners.py",
        "if site is not None and not site.listeners and not site.slots:",
        "if False:",
        LISTENERS,
    ),
    Fault(
        "the class gone under a listener",
        "adapters/filling.py",
        "if not site.slots and not site.listeners:",
        "if not site.slots:",
        LISTENERS,
    ),
    Fault(
        "a listener heard of a masked call for comparison",
        "adapters/token_selection.py",
        "listeners, site.listeners = site.listeners, ()",
        "listeners = site.listeners",
        LISTENERS,
    ),
    Fault(
        "a copy is listened to",
        "adapters/site.py",
        'return {**self.__dict__, "listeners": ()}',
        "return self.__dict__",
        LISTENERS,
    ),
    Fault(
        "a print of what is switched off",
        "adapters/slot.py",
        'return "" if self.enabled else ", disabled"',
        'return ""',
        LISTENERS,
    ),
    Fault(
        "similar by rows for columns",
        "diagnostics/measures/similarity.py",
        "dim=2) > threshold",
        "dim=3) > threshold",
        MEASURES,
    ),
    Fault(
        "kept rows of the first image for all",
        "ops/cpu/kernel/kernel.cpp",
        "*row++ = b * p.keys + k",
        "*row++ = k",
        "tests/adapters/test_token_selection.py",
    ),
    Fault(
        "kept rows of the first image for all, without the kernel",
        "ops/reference.py",
        "kept + geometry.num_keys * torch.arange",
        "kept + 0 * torch.arange",
        "tests/adapters/test_token_selection.py",
    ),
    Fault(
        "gradients of dropped tokens through keys they have not",
        "ops/cpu/kernel/projected.h",
        "to.row(j.rows[b * p.keys + i])",
        "to.row(b * p.queries + i)",
        "tests/ops/test_projected.py",
    ),
    Fault(
        "the first head's bias for all",
        "ops/cpu/kernel/linear.h",
        "load(bias + n * width + d)",
        "load(bias + d)",
        "tests/ops/test_projected.py",
    ),
    Fault(
        "the query's weights for what goes back through key and value",
        "ops/cpu/kernel/projected.h",
        "j.weight + item % 2 * inner * j.width",
        "j.weight",
        "tests/ops/test_projected.py",
    ),
    Fault(
        "gradient of a bias from the last rows alone",
        "ops/cpu/kernel/linear.h",
        "add ? load(to + d) + sum : sum",
        "sum",
        "tests/ops/test_projected.py",
    ),
    Fault(
        "gradient of a query from the last keys alone",
        "ops/cpu/kernel/backward.h",
        "lanes_qk, chunk > 0, to.ahead",
        "lanes_qk, false, to.ahead",
        "tests/ops/test_cpu.py",
    ),
    Fault(
        "zeros for a query that is not a number",
        "ops/cpu/kernel/forward.h",
        'to.total[i] = __builtin_nanf("")',
        "to.total[i] += 0",
        "tests/ops/test_attention.py",
    ),
    Fault(
        "items that no thread takes where images are summed",
        "ops/cpu/kernel/kernel.cpp",
        "std::max(pass.items() / p.batch, 1L)",
        "pass.items() / p.batch",
        "tests/ops/test_cpu.py",
    ),
    Fault(
        "native masks that forget half of a row's word",
        "ops/cpu/kernel/philox.h",
        "blocks.word2 ^ row.lower",
        "blocks.word2 ^ 0",
        "tests/ops/test_cpu.py",
    ),
    Fault(
        "every key of a tail is its first",
        "ops/cpu/kernel/operands.h",
        "lanes(b + k * width + d)",
        "lanes(b + d)",
        "tests/ops/test_cpu.py",
    ),
    Fault(
        "strided rows read as if they lay next to each other",
        "ops/cpu/kernel/operands.h",
        "from.step == columns && ",
        "",
        "tests/ops/test_cpu.py",
    ),
    Fault(
        "values of the first image where the keys end",
        "ops/cpu/kernel/projected.h",
        "j.kv + j.batch * j.keys * inner",
        "j.kv + j.keys * inner",
        "tests/ops/test_projected.py",
    ),
    Fault(
        "gradient of the output in the memory of the attention",
        "ops/cpu/kernel/projected.h",
        "arena(1)",
        "arena(0)",
        "tests/ops/test_projected.py",
    ),
    Fault(
        "rows past the end in a tile of sums",
        "ops/cpu/kernel/tile_gemm.h",
        "if (left.rows % kSide == 0)",
        "if (left.rows > 0)",
        TILES,
    ),
    Fault(
        "columns past the end in a tile of sums",
        "ops/cpu/kernel/tile_gemm.h",
        "columns > kSide ? tile_block<1, 2>",
        "columns > 0 ? tile_block<1, 2>",
        TILES,
    ),
    Fault(
        "cells past the end of the depth in a tile",
        "ops/cpu/kernel/tile_gemm.h",
        "if (rows == kSide && cells == kSide)",
        "if (rows == kSide)",
        TILES,
    ),
    Fault(
        "sums of few rows that forget what was there",
        "ops/cpu/kernel/tile_gemm.h",
        "for (long i = 0; i < left.rows; ++i) std::memcpy(room[i], c",
        "for (long i = 1; i < left.rows; ++i) std::memcpy(room[i], c",
        TILES,
    ),
    Fault(
        "the first half of a deep product alone",
        "ops/cpu/kernel/tile_gemm.h",
        "k += deep, add = true",
        "k += deep",
        TILES,
    ),
    Fault(
        "a left side that lies across, as it lies",
        "ops/cpu/kernel/tile_gemm.h",
        "if (by.step == 1) return place_of",
        "if (by.row) return place_of",
        TILES,
    ),
    Fault(
        "delta from another product than what it is subtracted from",
        "ops/cpu/kernel/backward.h",
        "square[n][n]",
        "square[n][n] * 1.0000002f",
        "tests/ops/test_cpu_tiles.py",
    ),
    Fault(
        "tile registers that no thread sets up",
        "ops/cpu/kernel/kernel.cpp",
        "    Tiles mine;\n",
        "",
        "tests/ops/test_cpu_tiles.py",
    ),
    Fault(
        "left and right exchanged in one tile instruction",
        "ops/cpu/kernel/tile.h",
        "_tile_dpbf16ps(1, 4, 7)",
        "_tile_dpbf16ps(1, 7, 4)",
        TILES,
    ),
    Fault(
        "tiles used though the system refuses",
        "ops/cpu/library.py",
        "        if refusal:\n",
        "        if False:\n",
        "tests/ops/test_cpu_build.py",
    ),
    Fault(
        "AMX without being asked",
        "ops/cpu/build.py",
        "if asked in ON_REQUEST:\n        order.insert(0, asked)",
        "order.insert(0, asked or 'amx')",
        "tests/ops/test_cpu_build.py",
    ),
    Fault(
        "kept keys on whichever backend",
        "ops/dispatch.py",
        '_require(backend, None if backend == "auto" else BACKENDS[check_backend(backend)].unavailable())',
        "_require(backend, None)",
        "tests/adapters/test_token_selection.py",
    ),
    Fault(
        "abilities of whichever backend",
        "ops/dispatch.py",
        'BACKENDS.values() if backend == "auto" else (',
        "BACKENDS.values() if backend else (",
        "tests/ops/test_projected.py",
    ),
    Fault(
        "abilities of a backend that is not there",
        "ops/dispatch.py",
        "if refusal(asked) is None and asked.unavailable() is None:",
        "if refusal(asked) is None:",
        "tests/ops/test_abilities.py",
    ),
    Fault(
        "the output without mixing forgotten",
        "ops/mixed_attention.py",
        "Mixing(theta, gain, offset, norm.eps, identity, plain, var)",
        "Mixing(theta, gain, offset, norm.eps, None, None, var)",
        MIXED,
    ),
    Fault(
        "mixed by the matrix transposed",
        "ops/cpu/kernel/mixed_moments.h",
        "slopes[(size_t)(g * 2 * heads + h)] = outer[(size_t)(h * heads + g)];",
        "slopes[(size_t)(g * 2 * heads + h)] = outer[(size_t)(g * heads + h)];",
        MIXED,
    ),
    Fault(
        "the norm's statistics taken for constants",
        "ops/cpu/kernel/mixed_backward.h",
        "(m.training ? 2 : 1) * heads",
        "heads",
        MIXED,
    ),
    Fault(
        "the variance's gradient forgotten in theta's",
        "ops/cpu/kernel/mixed_backward.h",
        " - by.second[(size_t)h] * count * inner",
        "",
        MIXED,
    ),
    Fault(
        "weights known again, not centered",
        "ops/cpu/kernel/mixed_scores.h",
        "weight) * part - middle);",
        "weight) * part);",
        MIXED,
    ),
    Fault(
        "a query without keys passes its gradient on",
        "ops/cpu/kernel/mixed_backward.h",
        "if (highest[h * p.queries] == kInfinity) {",
        "if (false) {",
        MIXED,
    ),
    Fault("running mean without the bias", "ops/mixed_attention.py", " + mixer.theta.bias  # the", "  # the", MIXED),
    Fault(
        "running variance of the batch, not of what it is drawn from",
        "ops/statistics.py",
        "var * (count / (count - 1))",
        "var",
        MIXED,
    ),
    Fault(
        "a fused batch counted twice under a checkpoint",
        "ops/statistics.py",
        "norm.num_batches_tracked is None or is_recomputing()",
        "norm.num_batches_tracked is None",
        MIXED,
    ),
    Fault(
        "fused although somebody sees the maps",
        "adapters/slots/reattention.py",
        "if dropper is None and not at.wants_maps and",
        "if dropper is None and",
        "tests/adapters/test_maps.py",
    ),
    Fault(
        "fused although weights are dropped",
        "adapters/slots/reattention.py",
        "if dropper is None and not at.wants_maps and",
        "if not at.wants_maps and",
        MIXING,
    ),
    Fault("parameters left behind", "adapters/added_parameters.py", "    delattr(module, name)", "    pass", MIXING),
    Fault(
        "the first blocks for the last",
        "regularizers.py",
        "[-(self.last or depth) :]",
        "[: self.last or depth]",
        MIXING,
    ),
    Fault(
        "verify of mixing compares nothing",
        "adapters/slots/reattention_proof.py",
        "if not error <= bound:",
        "if False:",
        MIXING,
    ),
    # The papers' backbones.
    Fault("keys and queries swapped", "models/token_stages.py", "k, q, v = self.kqv", "q, k, v = self.kqv", OFFICIAL),
    Fault(
        "scale of the head, not the input",
        "models/token_stages.py",
        "self.scale = dim**",
        "self.scale = out_dim**",
        OFFICIAL,
    ),
    Fault("qk_scale ignored", "models/t2t_vit.py", "block.attn.scale = qk_scale", "pass", OFFICIAL),
    Fault("first class token asks", "models/ceit_layers.py", "q[:, :, -1:]", "q[:, :, :1]", OFFICIAL),
    Fault("maps not scaled", "models/deepvit.py", "block.attn.scale if scale_maps else 1.0", "1.0", OFFICIAL),
    Fault(
        "branches not divided", "models/deepvit.py", "self.drop_path1(self.ls1(attended)) / scale", "attended", OFFICIAL
    ),
    Fault("first blocks mixed", "models/deepvit.py", "blocks[len(blocks) - count :]", "blocks[:count]", OFFICIAL),
    # Adapters.
    Fault(
        "other windows' keys keep their finite number",
        "adapters/class_swap.py",
        "mask = mask.masked_fill(mask < 0, -torch.inf)",
        "mask = mask.clone()",
        WINDOWS,
    ),
    Fault(
        "torchvision's other windows keep theirs",
        "adapters/routing.py",
        "-torch.inf if value == self.site.entry.window_mask_value else value",
        "value",
        WINDOWS,
    ),
    Fault(
        "windows taken for heads",
        "adapters/layout.py",
        'tensor.transpose(1, 2).flatten(0, 1) if layout in ("bhw", "gw")',
        'tensor.flatten(1, 2).unsqueeze(1).flatten(0, 1) if layout in ("bhw", "gw")',
        "tests/adapters/test_layout.py",
    ),
    Fault(
        "cascaded heads share a mask",
        "adapters/forward_pass.py",
        "0 if self.one_mask else self.num_calls",
        "0",
        IN_PLACE,
    ),
    Fault(
        "two maps of one head lose different keys",
        "adapters/forward_pass.py",
        "0 if self.one_mask else self.num_calls",
        "self.num_calls",
        IN_PLACE,
    ),
    Fault(
        "types under autocast left as they come",
        "ops/autocast.py",
        "not is_autocasting(kind):\n        return list(tensors)",
        "True:\n        return list(tensors)",
        PRECISION,
    ),
    Fault(
        "nn.MultiheadAttention run around",
        "adapters/routing.py",
        "            with self:\n                return unguarded_multi_head_attention(*args, **kwargs)",
        "            return func(*args, **kwargs)",
        "tests/adapters/test_torch_nn.py",
    ),
    Fault(
        "torch's fast path left on for Monte Carlo",
        "alignment.py",
        "torch.backends.mha.set_fastpath_enabled(False)",
        "torch.backends.mha.set_fastpath_enabled(True)",
        "tests/adapters/test_torch_nn.py",
    ),
    Fault(
        "kept tokens are the dropped ones",
        "patterns/token.py",
        "[:, 0, 0, : self.num_kept(drop_ratio, geometry.num_keys)]",
        "[:, 0, 0, -self.num_kept(drop_ratio, geometry.num_keys) :]",
        "tests/adapters/test_token_selection.py",
    ),
    Fault(
        "token selection forgets the other regularizer",
        "adapters/token_selection.py",
        "if len(slots) == 1 and slots[0].drops_tokens",
        "if slots and slots[0].drops_tokens",
        "tests/adapters/test_token_selection.py",
    ),
    # What the core once got wrong.
    Fault(
        "the door takes any type",
        "ops/cpu/door.py",
        "        or tensor.dtype is not dtype\n        or tensor.shape != shape\n        or not tensor.is_cpu",
        "        or tensor.shape != shape\n        or not tensor.is_cpu",
        CORE,
    ),
    Fault("the door takes any window", "ops/cpu/door.py", "window < 1 or window % 2 == 0 or", "window < 1 or", CORE),
    Fault("rows anywhere", "ops/cpu/projected.py", "highest.item() >= batch * tokens", "False", CORE),
    Fault(
        "transforms reach native code", "ops/saved_tensors.py", "    if transform is not None:", "    if False:", CORE
    ),
    Fault(
        "a shared batch is not shared",
        "ops/operands.py",
        "if any(size not in (1, batch) for size in sizes):",
        "if len(set(sizes)) > 1:",
        CORE,
    ),
    Fault("groups unasked", "ops/operands.py", "elif grouped and all(", "elif all(", CORE),
    Fault(
        "no gradient for a scale",
        "ops/operands.py",
        "query * scale.reshape(())",
        "query * scale.detach().reshape(())",
        CORE,
    ),
    Fault(
        "causal bias forgotten",
        "ops/operands.py",
        "        return None, True\n",
        "        return None, is_causal\n",
        CORE,
    ),
    Fault("forbidden from the smallest number", "ops/call.py", "FORBIDDEN = -5000.0", "FORBIDDEN = -3e38", CORE),
    Fault("the kernel forbids less", "ops/cpu/kernel/keep.h", "kForbidden = -5000", "kForbidden = -3e38f", CORE),
    Fault(
        "overflow is no number",
        "ops/cpu/kernel/forward.h",
        "to.total[i] != 0 ? 1 / to.total[i] : 0",
        "1 / to.total[i]",
        CORE,
    ),
    Fault("floats as seeds", "philox.py", "return operator.index(seed)", "return int(seed)", CORE),
    Fault(
        "any layout",
        "ops/layout_of_output.py",
        "if in_order.stride() == _dense_strides(in_order.shape):",
        "if True:",
        CORE,
    ),
    Fault("heads first", "ops/layout_of_output.py", "return 0, 2, 1, 3", "return 0, 1, 2, 3", CORE),
    Fault("the slot's ratio in the call", "adapters/forward_pass.py", "return ratio.clone()", "return ratio", CORE),
    Fault("the caller's ratio in the call", "ops/call.py", "torch.float64, copy=True)", "torch.float64)", CORE),
    Fault("any recomputation will do", "adapters/recomputation.py", "if before == settings:", "if True:", CORE),
    Fault(
        "a checkpoint inside runs around",
        "adapters/routing.py",
        "and _autograd_state() != self.autograd:",
        "and False:",
        CORE,
    ),
    Fault(
        "hooks round the sums",
        "ops/cpu/operators.py",
        "as_bits(sums), as_bits(drop_ratio)",
        "sums, as_bits(drop_ratio)",
        CORE,
    ),
    Fault(
        "a copy is the same handle",
        "adapters/slot.py",
        'which is no longer the same in a copy."""',
        'which is the same in a copy."""\n\n    def __deepcopy__(self, memo):\n        return self',
        CORE,
    ),
    Fault(
        "wrappers in names",
        "adapters/names.py",
        "or last in _STEPS or",
        "or",
        CORE,
    ),
    Fault("global hooks unheard", "ops/as_written.py", "!= _CALLS or _hears_globally():", "!= _CALLS:", CORE),
    Fault(
        "a forward of the class unseen",
        "ops/as_written.py",
        "_FORWARDS.get(type(m), type(m).forward) is type(m).forward",
        "True",
        CORE,
    ),
    Fault("weights of any class", "ops/as_written.py", "return is_bare and all(", "return True or all(", CORE),
    Fault(
        "vmap unasked", "ops/transforms.py", "_functorch.RandomnessType.Error", "_functorch.RandomnessType.Same", CORE
    ),
    Fault(
        "verify counts no seeds",
        "adapters/slots/dropkey_proof.py",
        "if len(set(seeds)) < len(seeds):",
        "if False:",
        CORE,
    ),
    Fault("verify takes any grid", "adapters/grid_of_pass.py", "if drawn != grid and", "if False and", CORE),
    Fault(
        "verify trusts the fast path",
        "adapters/slots/dropkey_proof.py",
        "    _check_whole_module(name, record)\n",
        "",
        CORE,
    ),
    Fault(
        "a threshold stays behind its ratio",
        "adapters/device_ratio.py",
        "            tensor.fill_(int(pattern.seed_threshold(ratio, grid_size)))",
        "            tensor.add_(0)",
        "tests/adapters/test_device_ratio.py",
    ),
    Fault(
        "a copy keeps the memory of another GPU",
        "adapters/device_ratio.py",
        "return DeviceRatio, (self._kind,)",
        "return DeviceRatio, (self._kind,), self.__dict__",
        "tests/adapters/test_device_ratio.py",
    ),
    Fault(
        "a given threshold unread",
        "ops/call.py",
        "if self.seed_threshold is not None:",
        "if False:",
        "tests/adapters/test_device_ratio.py",
    ),
    # Classes known by their shape.
    Fault(
        "channels taken for tokens",
        "adapters/by_shape.py",
        "if not any(_is_source(",
        "if False and not any(_is_source(",
        SHAPE,
    ),
    Fault("a change that nothing sees", "adapters/by_shape.py", " and free > 1e-3", "", SHAPE),
    Fault("one layout is enough", "adapters/by_shape.py", 'for layout in ("bh", "g")', 'for layout in ("bh",)', SHAPE),
    Fault("left out in silence", "adapters/by_shape.py", "            warnings.warn(", "            str(", SHAPE),
    # The order of blocks.
    Fault(
        "an example without effect",
        "adapters/plan.py",
        "carried_order(there) if example is None else by_execution(model, there, example)",
        "carried_order(there)",
        ORDER,
    ),
    Fault(
        "blocks by name",
        "adapters/block_order.py",
        "blocks[name] for name in ran",
        "blocks[name] for name in reversed(ran)",
        ORDER,
    ),
    Fault("an idle block is nobody's wish", "adapters/block_order.py", "    if idle:\n", "    if False:\n", ORDER),
    Fault("the order is forgotten", "adapters/apply.py", "f.block_index, True", "f.block_index, False", ORDER),
    Fault(
        "no word of the order",
        "adapters/order_watch.py",
        "        warnings.warn(self.remark, stacklevel=2)\n",
        "",
        ORDER,
    ),
    Fault(
        "verify keeps the remark", "adapters/verify.py", "_replace(remark=order.remark)", "_replace(remark=None)", ORDER
    ),
    Fault(
        "an option that does not act is taken",
        "runs/options.py",
        "        if not when.test(getattr(config, when.option)):",
        "        if False:",
        ACTING,
    ),
    Fault(
        "conditions of a condition are forgotten",
        "runs/options.py",
        "if when.option in by_name and (deeper",
        "if when.option not in by_name and (deeper",
        ACTING,
    ),
    Fault(
        "the file goes before the line",
        "cli/options.py",
        "Given({**values, **said}",
        "Given({**said, **values}",
        ACTING,
    ),
    Fault(
        "higher is always better",
        "runs/measure.py",
        'return value > other if self.better == "higher" else value < other',
        "return value > other",
        NEW_TASK,
    ),
    Fault("the gap of an error", "runs/measure.py", "else -gap", "else gap", NEW_TASK),
    # Looking at attention.
    Fault(
        "who listens takes torch's fast path away",
        "adapters/tap.py",
        "    if not passes_by(module):",
        "    if True:",
        UNFUSED,
    ),
    Fault(
        "who listens forbids other windows",
        "adapters/tap.py",
        "return func(tensor, mask, value)",
        "return super()._masked_fill(func, tensor, mask, value)",
        CAPTURE,
    ),
    Fault(
        "encoder layers are not heard",
        "adapters/fast_path.py",
        "    with without_fast_path():\n        forward(layer, src, *args, **kwargs)\n",
        "",
        UNFUSED,
    ),
    Fault(
        "dropped keys are shown",
        "diagnostics/heard.py",
        "if drops and call.draw is not None:",
        "if False:",
        CAPTURE,
    ),
    Fault(
        "the drop is shown before the drop",
        "diagnostics/heard.py",
        'self._weights(stage != "softmax", images, heads, queries)',
        "self._weights(True, images, heads, queries)",
        CAPTURE,
    ),
    Fault(
        "a look counts a batch",
        "diagnostics/heard.py",
        "        with uncounted(module):\n            return mix(attn)",
        "        return mix(attn)",
        CAPTURE,
    ),
    Fault(
        "chosen queries see later keys",
        "diagnostics/heard.py",
        "if is_causal and queries is not None:",
        "if False:",
        CAPTURE,
    ),
    Fault(
        "maps that Re-attention scales, unscaled",
        "models/deepvit.py",
        "self.map_scale * self.reattention(attn)",
        "self.reattention(attn)",
        UNFUSED,
    ),
    Fault(
        "a recomputation is captured",
        "diagnostics/capture.py",
        "        if not is_recomputing():\n            with",
        "        if True:\n            with",
        CAPTURE,
    ),
    Fault(
        "maps that do not fit are made",
        "diagnostics/capture.py",
        "if size > left:",
        "if False:",
        CAPTURE,
    ),
    Fault(
        "an unknown class is not captured in silence",
        "diagnostics/capture.py",
        "if unknown and chosen and where is None:",
        "if False:",
        CAPTURE,
    ),
    Fault(
        "hidden dropout is not named",
        "diagnostics/capture.py",
        "if heard.hides_dropout:",
        "if False:",
        CAPTURE,
    ),
    Fault(
        "a compiled model is not heard",
        "diagnostics/capture.py",
        'if any(hasattr(module, "_orig_mod") for module in model.modules()):',
        "if False:",
        CAPTURE,
    ),
    Fault(
        "entropy of the mean row",
        "diagnostics/measures/sharpness.py",
        "torch.special.entr(attn).sum(-1).mean(-1)",
        "torch.special.entr(attn.mean(-2)).sum(-1)",
        MEASURES,
    ),
    Fault(
        "peak of the columns",
        "diagnostics/measures/sharpness.py",
        "attn.amax(-1).mean(-1)",
        "attn.amax(-2).mean(-1)",
        MEASURES,
    ),
    Fault(
        "distance with rows for columns",
        "diagnostics/measures/distance.py",
        "torch.arange(rows, device",
        "torch.arange(cols, device",
        MEASURES,
    ),
    Fault(
        "distance of weights that do not sum to 1",
        "diagnostics/measures/distance.py",
        ".sum(-1) / seen",
        ".sum(-1)",
        MEASURES,
    ),
    Fault(
        "a head is compared with itself",
        "diagnostics/measures/similarity.py",
        "(cosines.sum(-1) - cosines.diagonal(dim1=-2, dim2=-1)) / (attn.shape[1] - 1)",
        "cosines.mean(-1)",
        MEASURES,
    ),
    Fault(
        "rows of layers for columns",
        "diagnostics/measures/similarity.py",
        "normalize(torch.stack(list(maps)), dim=-2)",
        "normalize(torch.stack(list(maps)), dim=-1)",
        MEASURES,
    ),
    Fault(
        "rank of squares",
        "diagnostics/measures/rank.py",
        "torch.linalg.svdvals(attn.to(torch.float64))",
        "torch.linalg.svdvals(attn.to(torch.float64)).square()",
        MEASURES,
    ),
    Fault(
        "rank in single precision",
        "diagnostics/measures/rank.py",
        "attn.to(torch.float64)",
        "attn",
        MEASURES,
    ),
    Fault(
        "a sink's value, not its norm among others",
        "diagnostics/measures/sinks.py",
        "own / norms.mean(-1)",
        "own",
        MEASURES,
    ),
    Fault(
        "rollout from the last block",
        "diagnostics/measures/rollout.py",
        "mixed @ before",
        "before @ mixed",
        MEASURES,
    ),
    Fault(
        "rollout without the skip connection",
        "diagnostics/measures/rollout.py",
        "attn.mean(1) + torch.eye(attn.shape[-1], dtype=attn.dtype, device=attn.device)",
        "attn.mean(1)",
        MEASURES,
    ),
    Fault(
        "what speaks against a class speaks for it",
        "diagnostics/measures/rollout.py",
        "(gradient * attn).clamp(min=0)",
        "(gradient * attn).abs()",
        MEASURES,
    ),
    Fault(
        "the other class' relevance",
        "diagnostics/relevance.py",
        "logits[0, target]",
        "logits[0, 0]",
        RELEVANCE,
    ),
    Fault(
        "windows of the first image for all",
        "diagnostics/windows.py",
        "maps.reshape(-1, windows, *maps.shape[1:])[:, window",
        "maps.reshape(-1, windows, *maps.shape[1:])[:1].expand(len(maps) // windows, -1, -1, -1, -1)[:, window",
        SEEN_WINDOWS,
    ),
    Fault(
        "padding is the last patch",
        "diagnostics/windows.py",
        "keys.where(keys >= 0, key_count)",
        "keys.where(keys >= 0, key_count - 1)",
        SEEN_WINDOWS,
    ),
    Fault(
        "every tensor of the right shape is a map of the image",
        "diagnostics/feature_maps.py",
        "_LEAST_CORRELATION = 0.9",
        "_LEAST_CORRELATION = -2.0",
        SEEN_WINDOWS,
    ),
    Fault(
        "patches learn of each other before their windows are found",
        "diagnostics/feature_maps.py",
        "hooks = [module.register_forward_hook(silence) for module in attention]",
        "hooks = []",
        SEEN_WINDOWS,
    ),
    Fault(
        "tokens of several patches lie at the nearest number",
        "diagnostics/source.py",
        "fits = ((ratio - number).abs() < _TOLERANCE) & (number >= 1) & (rest < 1e-3 * weighted.norm(dim=-1))",
        "fits = number >= 1",
        SEEN_WINDOWS,
    ),
    Fault(
        "a cell's weight is the sum of its queries",
        "diagnostics/pooling.py",
        "_summed(attn, cells, -2) / cells.bincount()[:, None]",
        "_summed(attn, cells, -2)",
        DIAGNOSE,
    ),
    Fault(
        "cells of columns",
        "diagnostics/token_grid.py",
        "self.pooled(cell)[1] + torch",
        "self.pooled(cell)[0] + torch",
        DIAGNOSE,
    ),
    Fault(
        "object queries are patches",
        "diagnostics/seen_site.py",
        'None if found.kind in ("window", "decoder self") else image',
        "image",
        DIAGNOSE,
    ),
    Fault(
        "measures of the pooled maps",
        "diagnostics/site_measures.py",
        '"entropy": entropy(attn)',
        '"entropy": entropy(pooled)',
        DIAGNOSE,
    ),
    Fault(
        "prefix tokens in the picture",
        "diagnostics/chosen.py",
        "rows[:, site.num_key_prefix :]",
        "rows[:, : rows.shape[1] - site.num_key_prefix]",
        DIAGNOSE,
    ),
    Fault(
        "a model stays in evaluation mode",
        "adapters/restoring.py",
        "            module.training = training\n\n\n@contextlib.contextmanager\ndef evaluating",
        "            pass\n\n\n@contextlib.contextmanager\ndef evaluating",
        DIAGNOSE,
    ),
    Fault(
        "a look at every epoch",
        "diagnostics/callback.py",
        "is_due = epoch >= self._next or epoch == last",
        "is_due = True",
        CALLBACK,
    ),
    Fault(
        "the last epoch is not looked at",
        "diagnostics/callback.py",
        " or epoch == last",
        "",
        CALLBACK,
    ),
    # Numbers that a user reads.
    Fault(
        "evaluate --checkpoint last loads the best",
        "tasks/loading.py",
        '"last": folder.last_checkpoint',
        '"last": folder.best_checkpoint',
        REPORTED,
    ),
    Fault(
        "the best epoch is that of the lowest loss",
        "runs/record.py",
        "self.headline.is_better(row[self.headline.val], best[self.headline.val])",
        'row.get("val_loss", 0) < best.get("val_loss", 1)',
        REPORTED,
    ),
    Fault(
        "the best epoch is the last of equals",
        "runs/measure.py",
        'value > other if self.better == "higher" else value < other',
        'value >= other if self.better == "higher" else value <= other',
        REPORTED,
    ),
    Fault(
        "spreads where right and wrong are swapped",
        "tasks/classification/measuring.py",
        "((True, right), (False, ~right))",
        "((False, right), (True, ~right))",
        REPORTED,
    ),
    Fault(
        "calibration error of one bin",
        "tasks/classification/measuring.py",
        "_CALIBRATION_BINS = 15",
        "_CALIBRATION_BINS = 1",
        REPORTED,
    ),
    Fault(
        "implicit seeds of 16 bits",
        "philox.py",
        "torch.randint(-(2**63), 2**63 - 1, ()",
        "torch.randint(0, 2**16, ()",
        REPORTED,
    ),
    # Ordinary use.
    Fault("windows on the grid of apply", "adapters/grid_of_pass.py", "site.grid_size = grid\n", "pass\n", USE),
    Fault("apply leaves a half", "adapters/apply.py", "            empty(module, slot)\n", "            pass\n", USE),
    Fault(
        "Monte Carlo in every thread",
        "adapters/slots/drop_slot.py",
        "thread == threading.get_ident()",
        "thread is not None",
        USE,
    ),
    Fault(
        "a forward that outlives removal",
        "adapters/class_swap.py",
        'getattr(self, "_dropkey_site", None)',
        "self._dropkey_site",
        USE,
    ),
    Fault("assignments that do nothing", "adapters/handle.py", "if name not in _ASSIGNED:", "if False:", USE),
    # Data.
    Fault("gray of 16 bits is white", "data/picture.py", "values * (255 / white)", "values.clip(0, 255)", PICTURE),
    Fault("pictures on their side", "data/picture.py", "ImageOps.exif_transpose(image)", "image", PICTURE),
    Fault(
        "hidden folders are classes",
        "data/image_tree.py",
        'entry.name.startswith((".", "@", "#"))',
        'entry.name.startswith("~")',
        TREE,
    ),
    Fault("a fingerprint of names alone", "data/image_tree.py", "if index % step == 0:", "if index < 0:", TREE),
    Fault(
        "odd batches for pairs",
        "data/loaders.py",
        "size - size % 2 if self.pairs",
        "size if self.pairs",
        "tests/data/test_overview.py",
    ),
    # Files of others, and runs.
    Fault("code in weights is run", "models/torch_file.py", "weights_only=True", "weights_only=False", WEIGHTS),
    Fault("prefixes of wrappers stay", "models/weights.py", "best = shorter\n    return", "pass\n    return", WEIGHTS),
    Fault("alias bombs", "runs/yaml_file.py", "isinstance(event, yaml.AliasEvent)", "False", YAML),
    Fault(
        "a config names files to the model",
        "tasks/classification/model_kwargs.py",
        '"checkpoint_path": "not',
        '"checkpoint_paths": "not',
        YAML,
    ),
    Fault("resumed on other data", "runs/training.py", "!= checkpoints.fingerprint:", "is None:", COMMANDS),
    Fault("two processes a folder", "runs/run_lock.py", "fcntl.LOCK_EX |", "fcntl.LOCK_SH |", COMMANDS),
    Fault(
        "a diverging arm ends all",
        "experiments/job.py",
        "    except (DivergedError, Stopped) as error:\n        return error\n",
        "",
        COMMANDS,
    ),
    # The audit.
    Fault("the audit sees no masks", "diagnostics/audit/watch.py", '"mul": Watch.multiplied,', "", AUDIT),
    Fault(
        "the audit takes any share",
        "diagnostics/audit/bound.py",
        "return draws * _divergence(share, rate) <= _LIMIT",
        "return True",
        AUDIT,
    ),
    Fault(
        "the audit takes any scale", "diagnostics/audit/judgement.py", "return drop.scales[-1]", "return None", AUDIT
    ),
    Fault(
        "the audit believes in training mode",
        "diagnostics/audit/run.py",
        "        model.eval()\n",
        "        model.train()\n",
        AUDIT,
    ),
    Fault(
        "the audit hears of one module's parts alone",
        "diagnostics/audit/evidence.py",
        "return list(dict.fromkeys([*self._names, *ran]))",
        "return list(self._names)",
        AUDIT,
    ),
    Fault(
        "the audit lets an unused rate pass",
        "diagnostics/audit/judgement.py",
        'if "att" in name:',
        'if "att" not in name:',
        AUDIT,
    ),
    Fault(
        "the audit leaves its hooks behind",
        "diagnostics/audit/running.py",
        "            after.remove()\n",
        "",
        AUDIT,
    ),
    Fault(
        "the audit leaves Python's generator moved",
        "diagnostics/audit/passes.py",
        "            random.setstate(python_state)\n",
        "",
        AUDIT,
    ),
    Fault(
        "the audit compares no masks",
        "diagnostics/audit/evidence.py",
        "all(mark == marks[0] for mark in marks)",
        "False",
        AUDIT,
    ),
    # The page.
    Fault("names end the data", "diagnostics/page/page.py", '.replace("<", ', '.replace("\\0", ', PAGE),
    Fault("a title of markup", "diagnostics/page/page.py", "title=html.escape(title)", "title=title", PAGE),
    Fault(
        "a sink swallows the digits",
        "diagnostics/page/coding.py",
        "rest = patches.scatter(-1, places, 0.0)",
        "rest = patches",
        PAGE,
    ),
    Fault(
        "codes from another place", "diagnostics/page/coding.py", "(1 + octaves / self", "(1.2 + octaves / self", PAGE
    ),
    Fault("a page of any size", "diagnostics/page/content.py", "<= max_bytes or", "<= 1e12 or", PAGE),
    Fault(
        "a row further down",
        "diagnostics/page/assets/maps.js",
        "each * site.rows + query, 1",
        "each * site.rows + Math.max(0, query - 1), 1",
        BROWSER,
    ),
    Fault(
        "names as markup",
        "diagnostics/page/assets/stage.js",
        "panel.name.textContent = ",
        "panel.name.innerHTML = ",
        BROWSER,
    ),
    Fault(
        "sliders without names",
        "diagnostics/page/assets/page.html",
        "<label><span>Head",
        "<label><span hidden>",
        BROWSER,
    ),
    # Bodies.
    Fault(
        "a mirrored body is right",
        "tasks/mesh/alignment.py",
        "points.double(), target",
        "points.abs(), target",
        MESH_METRICS,
    ),
    Fault("no scale", "tasks/mesh/alignment.py", "scale[:, None, None] * turned", "turned", MESH_METRICS),
    Fault(
        "one hip for the pelvis",
        "tasks/mesh/alignment.py",
        "joints[:, right]) / 2",
        "joints[:, left]) / 2",
        MESH_METRICS,
    ),
    Fault(
        "the surface around its own middle",
        "tasks/mesh/metrics.py",
        "target_vertices_mm.double() - target_pelvis",
        "target_vertices_mm.double() - pelvis",
        MESH_METRICS,
    ),
    Fault(
        "masked in evaluation",
        "tasks/mesh/metro.py",
        "if not self.training or not self.mask_ratio",
        "if not self.mask_ratio",
        METRO,
    ),
    Fault("two dropouts of attention", "tasks/mesh/metro.py", "    layer.self_attn.dropout = 0.0\n", "", METRO),
    Fault(
        "no path around", "tasks/mesh/metro.py", "self.head(hidden) + self.around(tokens)", "self.head(hidden)", METRO
    ),
    Fault(
        "shift before scale",
        "tasks/mesh/body_network.py",
        "(points[..., :2] + self.camera[:, None, 1:])",
        "points[..., :2]",
        METRO,
    ),
    Fault(
        "both sides bend alike",
        "data/bodies/poses.py",
        '(("L", 1.0), ("R", -1.0))',
        '(("L", 1.0), ("R", 1.0))',
        BODIES,
    ),
    Fault("knees bend forward", "data/bodies/angles.py", "Angle(30, 30, 0, 105)", "Angle(-30, 30, -105, 0)", BODIES),
    Fault(
        "the camera's rotation the wrong way round",
        "data/humbi.py",
        "(points - camera.center) @ camera.rotation.T",
        "(points - camera.center) @ camera.rotation",
        HUMBI,
    ),
    # Interactions.
    Fault(
        "a duplicate is right",
        "tasks/interaction/metrics/matching.py",
        "rank < capacities[groups]",
        "rank < capacities[groups] + 1",
        PAIR_AP,
    ),
    Fault(
        "the better of both overlaps decides",
        "tasks/interaction/metrics/hico_det.py",
        "overlaps = np.minimum(",
        "overlaps = np.maximum(",
        PAIR_AP,
    ),
    Fault(
        "known object: images of the predictions count too",
        "tasks/interaction/metrics/hico_det.py",
        "np.isin(keys[len(truth) :], keys[: len(truth)])",
        "np.isin(keys[len(truth) :], keys)",
        PAIR_AP,
    ),
    Fault(
        "recall as a float: three of ten is below 0.3",
        "tasks/interaction/metrics/average_precision.py",
        "np.searchsorted(10 * found, _TENTHS * num_truth)",
        "np.searchsorted(found / num_truth, np.arange(0, 1.1, 0.1))",
        PAIR_AP,
    ),
    Fault(
        "equal scores in the order of the sort",
        "tasks/interaction/metrics/average_precision.py",
        "np.append(scores[1:] != scores[:-1], True)",
        "np.ones(len(scores), dtype=bool)",
        PAIR_AP,
    ),
    Fault(
        "scenarios swapped",
        "tasks/interaction/metrics/vcoco.py",
        "if scenario == 1 else",
        "if scenario == 2 else",
        PAIR_AP,
    ),
    Fault(
        "the loss of verbs over all queries, divided by their number",
        "tasks/interaction/qpic/losses.py",
        "/ labels.sum().clamp(min=1)",
        "/ labels.numel()",
        QPIC,
    ),
    Fault(
        "a missing object has a box at the corner",
        "tasks/interaction/qpic/matcher.py",
        "torch.where(target.has_object, l1[1], l1[0])",
        "l1[1]",
        QPIC,
    ),
    # Arms beside DropKey.
    Fault(
        "dropout of patches that a model never calls is believed",
        "models/timm_dropout.py",
        "if patch_drop and not _some_run(network, name, patches, example):",
        "if patch_drop and not patches:",
        TIMM_DROPOUT,
    ),
    Fault(
        "the option of dropout before the head reaches no model",
        "models/timm_dropout.py",
        '"drop_rate": head_drop}',
        '"drop_rate": 0.0}',
        TIMM_DROPOUT,
    ),
    Fault(
        "both passes draw the same",
        "tasks/classification/consistency.py",
        "logits.float().log_softmax(-1).chunk(2)",
        "logits[: len(logits) // 2].float().log_softmax(-1).repeat(2, 1).chunk(2)",
        CONSISTENCY,
    ),
    Fault(
        "one of the two divergences alone",
        "tasks/classification/consistency.py",
        "return (forth + back) / 2",
        "return forth",
        CONSISTENCY,
    ),
    Fault(
        "an arm without draws pays for two passes",
        "tasks/classification/module.py",
        '0.0 if idle_because(config, "consistency") else config.consistency',
        "config.consistency",
        CONSISTENCY,
    ),
    Fault(
        "the smallest logits are dropped from",
        "ops/top_keys.py",
        "dim=-1, sorted=False).indices",
        "dim=-1, largest=False, sorted=False).indices",
        TOP_SHARE,
    ),
    Fault(
        "others than the candidates are dropped",
        "ops/call.py",
        "keep if self.candidates is None else keep | ~self.candidates",
        "keep",
        TOP_SHARE,
    ),
    Fault(
        "the fused kernel takes a call with candidates",
        "ops/cpu/backend.py",
        "if call.draw is not None and call.draw.candidates is not None:",
        "if False:",
        TOP_SHARE,
    ),
    Fault(
        "forbidden keys are candidates before allowed ones",
        "ops/top_keys.py",
        "    if allowed is not None:\n        logits = torch.where(allowed, logits, -torch.inf)\n",
        "",
        TOP_SHARE,
    ),
    Fault(
        "the temperature of another head",
        "ops/locality.py",
        "self.gain.to(x.dtype)[:, None, None]",
        "self.gain.flip(0).to(x.dtype)[:, None, None]",
        LOCALITY,
    ),
    Fault(
        "a token that may see itself alone sees nothing",
        "ops/locality.py",
        "hidden = itself & others.any(-1, keepdim=True)",
        "hidden = itself.expand(others.shape)",
        LOCALITY,
    ),
    Fault(
        "a bias loses its diagonal's mask",
        "ops/locality.py",
        "attn_bias=torch.where(hidden, -torch.inf, bias)",
        "attn_bias=bias",
        LOCALITY,
    ),
    Fault(
        "one regularizer takes the other's hook with it",
        "adapters/added_parameters.py",
        "    ours = next((key for key, hook in hooks.items() if hook is _no_fast_path), None)\n"
        "    if ours is not None:  # one for each that was put in\n"
        "        del hooks[ours]\n",
        "    for key in [key for key, hook in hooks.items() if hook is _no_fast_path]:\n        del hooks[key]\n",
        LOCALITY,
    ),
    # Choosing the ratio.
    Fault(
        "the check has the seeds of the search",
        "experiments/tuning/search.py",
        "FIRST_SEED = 1000",
        "FIRST_SEED = 0",
        TUNE,
    ),
    Fault(
        "the check validates on images of the search",
        "experiments/tuning/check.py",
        '_OF_THE_SEARCH = ("val_share",)',
        "_OF_THE_SEARCH = ()",
        TUNE,
    ),
    Fault(
        "any gain is a gain",
        "experiments/tuning/check.py",
        "gain, loss = (low > 0, high < 0)",
        "gain, loss = (difference.mean > 0, high < 0)",
        FOUND,
    ),
    Fault(
        "a trial under way is forgotten",
        "experiments/tuning/search.py",
        'if trial.state == "running" and',
        'if trial.state == "forgotten" and',
        TUNE,
    ),
    Fault(
        "a search that goes on draws what it drew",
        "experiments/tuning/trials.py",
        "TPESampler(seed=seed,",
        "TPESampler(seed=0,",
        TRIALS,
    ),
    Fault(
        "higher is better, whatever is measured",
        "experiments/tuning/trials.py",
        '"maximize" if self.measure.better == "higher" else "minimize"',
        '"maximize"',
        TRIALS,
    ),
    Fault(
        "options that do not act are searched",
        "experiments/tuning/space.py",
        "if idle_because(resolve(chosen), dimension.option) is None:",
        "if True:",
        SPACE,
    ),
    # Detection.
    Fault(
        "detection: crowds are objects",
        "tasks/detection/average_precision.py",
        '"iscrowd": int(crowd)',
        '"iscrowd": 0',
        DETECTION_AP,
    ),
    Fault(
        "detection: sizes by the box, not by the object",
        "tasks/detection/average_precision.py",
        '"area": float(area), ',
        '"area": float((xyxy[2] - xyxy[0]) * (xyxy[3] - xyxy[1])), ',
        DETECTION_AP,
    ),
    Fault(
        "detection: annotations numbered from 0",
        "tasks/detection/average_precision.py",
        "enumerate(rows, 1)",
        "enumerate(rows)",
        DETECTION_AP,
    ),
    Fault(
        "detection: AP75 at 0.7",
        "tasks/detection/average_precision.py",
        "_IOU_50, _IOU_75 = 0, 5",
        "_IOU_50, _IOU_75 = 0, 4",
        DETECTION_AP,
    ),
    Fault(
        "detection: nothing to find counts as 0",
        "tasks/detection/average_precision.py",
        "if found.size else None",
        "if found.size else 0.0",
        DETECTION_AP,
    ),
    Fault(
        "detection: rows and columns swapped in scaling",
        "tasks/detection/detections.py",
        "[sizes[i][1], sizes[i][0]]",
        "[sizes[i][0], sizes[i][1]]",
        DETECTORS,
    ),
    Fault(
        "detection: no object is a class",
        "tasks/detection/families.py",
        "logits.softmax(-1)[..., :-1].max(-1)",
        "logits.softmax(-1).max(-1)",
        DETECTORS,
    ),
    Fault(
        "detection: cross attention taken for the decoder's own",
        "tasks/detection/parts.py",
        'if found.kind.endswith("cross")',
        'if found.kind == "cross"',
        DETECTORS,
    ),
    Fault(
        "detection: the backbone at the rate of the others",
        "tasks/detection/optimizer.py",
        "config.backbone_lr or config.lr if in_backbone",
        "config.lr if in_backbone",
        DETECTION_OPTIONS,
    ),
    Fault(
        "detection: norms decay",
        "tasks/detection/optimizer.py",
        "config.weight_decay if decays else 0.0",
        "config.weight_decay",
        DETECTION_OPTIONS,
    ),
    Fault("detection: crowds are learned", "data/box_transforms.py", "~boxes.is_crowd", "boxes.is_crowd >= 0", BOXES),
    Fault(
        "detection: padding taken for image",
        "data/box_transforms.py",
        "mask[place, : image.shape[1], : image.shape[2]] = 1",
        "mask[place] = 1",
        BOXES,
    ),
    Fault(
        "detection: boxes in shares of the image before it was changed",
        "data/box_transforms.py",
        "_shares(xyxy, rows, cols), index",
        "_shares(xyxy, *pixels.shape[:2]), index",
        BOXES,
    ),
    Fault(
        "detection: boxes of a photograph as stored on one turned upright",
        "data/boxed_files.py",
        "if image.size == (rows, cols):",
        "if False:",
        BOXED,
    ),
    Fault("detection: sizes of YOLO's images as stored", "data/yolo.py", "size[1], size[0]", "size", BOXED),
    # What a comparison says.
    Fault(
        "Bonferroni for Holm", "experiments/statistics.py", "(len(p_values) - rank) *", "len(p_values) *", STATISTICS
    ),
    Fault("a one-sided interval", "experiments/statistics.py", "1 - ALPHA / 2))\n\n", "1 - ALPHA))\n\n", STATISTICS),
    Fault(
        "seeds needed as if the spread were known",
        "experiments/statistics.py",
        "if _power(effect, int(pairs)) >= POWER:",
        "if pairs > 1:",
        STATISTICS,
    ),
    Fault(
        "equal differences are told from 0 with certainty",
        "experiments/statistics.py",
        "return Difference(mean, math.nan, math.nan, pairs=pairs)",
        "return Difference(mean, mean, mean, 0.0, 2.0, pairs)",
        STATISTICS,
    ),
    Fault(
        "more millimeters are better",
        "experiments/comparison_words.py",
        "headline.is_better(row.difference.mean, 0.0)",
        "row.difference.mean > 0",
        ARMS_TABLE,
    ),
    Fault(
        "arms are judged one by one",
        "experiments/comparison_words.py",
        "if row.p_holm < ALPHA]",
        "if row.difference and row.difference.p_value < ALPHA]",
        ARMS_TABLE,
    ),
    Fault(
        "names drawn over each other",
        "pages/chart.py",
        "max(previous + _LINE, min(",
        "max(previous, min(",
        ARMS_PAGE,
    ),
    Fault(
        "the kernel of Re-attention is built on the clock",
        "runs/training.py",
        "any(map(site_of, prepared.network.modules()))",
        "prepared.handle is not None",
        COMMANDS,
    ),
]
