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
SETTINGS = "tests/adapters/test_settings.py"
OFFICIAL = "tests/models/test_official.py"
CORE = "tests/test_core_faults.py"
MEASURES = "tests/diagnostics/test_measures.py"
CAPTURE = "tests/diagnostics/test_capture.py"
PAIR_AP = "tests/tasks/interaction/metrics"
QPIC = "tests/tasks/interaction/qpic"

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
        "elif (rival := site.rival(slot_class)) is not None:",
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
        "adapters/site.py",
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
    Fault("parameters left behind", "adapters/mixing.py", "    delattr(module, MIXER)", "    pass", MIXING),
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
]
