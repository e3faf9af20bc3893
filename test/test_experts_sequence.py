"""Denoisers of sequences against closed forms: scans, caches, windows, causality, size of the state, the expert."""

from dataclasses import replace

import pytest
import torch

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.types import Context
from come_nav.experts.normalizer import Normalizer
from come_nav.experts.passes import passes_of
from come_nav.experts.sequence.expert import SequenceExpert, SequenceNetwork
from come_nav.experts.sequence.mixers import BandAttention, SsmMixer
from come_nav.experts.sequence.network import CLEAN, SequenceDenoiser
from come_nav.experts.sequence.scan import scan_chunks, scan_steps
from come_nav.experts.sequence.settings import MEMORY_KINDS, SequenceSettings
from come_nav.memory.recurrent import RecurrentMemory
from come_nav.world_model.sampling.schedule import NoiseSchedule

SMALL = SequenceSettings(
    input_size=8,
    patch_size=2,
    in_channels=3, hidden_size=16, depth=2, num_heads=2, window_frames=4, local_frames=4, state_size=5, scan_chunk=7,
    block_sizes=(2, 1),
)  # fmt: skip
WAVES = replace(SMALL, memory="ssm", place_waves=6, state_size=12)
EXACT = 1e-10
KINDS = [*(replace(SMALL, memory=kind) for kind in MEMORY_KINDS), WAVES]


def network(settings: SequenceSettings) -> SequenceDenoiser:
    """Return a network in float64 whose output is not zero, as that of an untrained one is."""
    made = SequenceDenoiser(settings).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return made.eval()


def sequence(frames: int, batch: int = 2, settings: SequenceSettings = SMALL) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(frames)
    shape = (batch, frames, settings.in_channels, settings.input_size, settings.input_size)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    t = torch.randint(CLEAN, 1000, (batch, frames), generator=generator)
    poses = torch.randn(batch, frames, 3, generator=generator, dtype=torch.float64)
    return x, t, poses, 0.3 * poses.flip(1)


def scan_inputs(length: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(length)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return draw(2, length, 3, 4), draw(2, length, 3).exp(), -draw(3).exp(), draw(2, length, 5), draw(2, length, 5)


@pytest.mark.parametrize("length", [1, 7, 8, 23])
def test_the_scan_in_chunks_is_the_recurrence_and_is_the_sum_it_stands_for(length):
    x, dt, rate, b, c = scan_inputs(length)
    start = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y_steps, state_steps = scan_steps(x, dt, rate, b, c, start)
    y_chunks, state_chunks = scan_chunks(x, dt, rate, b, c, start, chunk=8)
    torch.testing.assert_close(y_chunks, y_steps, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(state_chunks, state_steps, rtol=EXACT, atol=EXACT)
    # y_i = exp(a_1 + ... + a_i) S_0 c_i + sum_{j <= i} exp(a_{j+1} + ... + a_i) (c_i . b_j) dt_j x_j
    total = (dt * rate).cumsum(1)
    last = length - 1
    closed = (start * c[:, last, None, None]).sum(-1) * total[:, last, :, None].exp()
    for index in range(length):
        decay = (total[:, last] - total[:, index]).exp() * dt[:, index]
        closed = closed + decay[..., None] * x[:, index] * (c[:, last] * b[:, index]).sum(-1)[:, None, None]
    torch.testing.assert_close(y_steps[:, last], closed, rtol=EXACT, atol=EXACT)


def test_the_scan_in_chunks_has_finite_gradients_where_the_state_decays_at_once():
    x, _, _, b, c = scan_inputs(16)
    dt = torch.full((2, 16, 3), 50.0, dtype=torch.float64, requires_grad=True)
    y, _ = scan_chunks(x, dt, torch.full((3,), -40.0, dtype=torch.float64), b, c, chunk=8)
    y.sum().backward()
    assert torch.isfinite(y).all() and dt.grad is not None and torch.isfinite(dt.grad).all()


@pytest.mark.parametrize("settings", KINDS)
@pytest.mark.parametrize("cut", [1, 5, 12])
def test_frame_by_frame_is_the_whole_pass(settings, cut):
    made, inputs = network(settings), sequence(13)
    whole, after = made(*inputs)
    first, state = made(*(part[:, :cut] for part in inputs))
    outputs = [first]
    for index in range(cut, 13):
        output, state = made(*(part[:, index : index + 1] for part in inputs), state)
        outputs.append(output)
    assert float(whole.detach().abs().max()) > 0.1
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=EXACT, atol=EXACT)
    assert state.frames == after.frames == 13
    for own, other in zip(state.layers, after.layers, strict=True):
        for kept, wanted in zip(own, other, strict=True):
            for name in wanted:
                newest = kept[name][:, :, -wanted[name].shape[2] :] if name in ("key", "value") else kept[name]
                torch.testing.assert_close(newest, wanted[name], rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("settings", KINDS)
def test_an_empty_state_is_no_state(settings):
    made, inputs = network(settings), sequence(6)
    torch.testing.assert_close(made(*inputs, made.start(2))[0], made(*inputs)[0], rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("settings", KINDS)
def test_a_later_frame_never_changes_an_earlier_output(settings):
    made, (x, t, poses, actions) = network(settings), sequence(11)
    before, _ = made(x, t, poses, actions)
    x, t, poses = x.clone(), t.clone(), poses.clone()
    x[:, 7:] += 1.0
    t[:, 7:] = 500
    poses[:, 7:] += 2.0
    after, _ = made(x, t, poses, actions)
    torch.testing.assert_close(after[:, :7], before[:, :7], rtol=0.0, atol=0.0)
    assert (after[:, 7:] - before[:, 7:]).abs().amax((0, 2, 3, 4)).min() > 1e-3


def test_waves_tell_poses_apart_by_distance_and_turn_together():
    settings = replace(WAVES, place_waves=4000, place_length=0.5, place_turns=2.0)
    torch.manual_seed(0)
    made = SequenceDenoiser(settings).double()
    length, steps = settings.place_length, torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    poses = torch.stack([0.6 * steps, 0.8 * steps, torch.zeros(4)], -1)  # along a slanted line
    turned = poses + torch.tensor([0.0, 0.0, 0.6])
    codes = made._places(torch.stack([poses, turned]))
    likeness = codes @ codes[0, 0] / settings.place_waves
    wanted = torch.exp(-0.5 * (steps / length) ** 2)
    torch.testing.assert_close(likeness[0], wanted, atol=0.04, rtol=0)
    draws = (settings.place_turns * torch.randn(100_000, dtype=torch.float64)).round()
    torch.testing.assert_close(likeness[1], wanted * (0.6 * draws).cos().mean(), atol=0.05, rtol=0)


def test_at_first_a_scan_reads_what_was_written_where_it_stands():
    settings = replace(WAVES, place_waves=64, state_size=128, hidden_size=32, block_sizes=(1,), conv_width=0)
    torch.manual_seed(0)
    made = SequenceDenoiser(settings)
    layer, frames = SsmMixer(settings, 0), 40
    poses = torch.randn(1, frames, 3) * torch.tensor([3.0, 3.0, 1.5])
    poses[:, -1] = poses[:, 11]  # where it was before
    tokens = torch.randn(1, frames, settings.tokens, settings.hidden_size)
    places = made._places(poses)

    def effect(of: int) -> float:
        other = tokens.clone()
        other[:, of] = torch.randn_like(other[:, of])
        changed = layer(other, None, 0, places)[0] - layer(tokens, None, 0, places)[0]
        return float(changed.detach()[:, -1].norm())

    others = torch.tensor([effect(index) for index in range(39) if index != 11])
    assert effect(11) > 3.0 * float(others.mean())
    assert effect(11) > float(others.max())


def test_what_lies_beyond_reach_is_forgotten_and_what_lies_within_is_not():
    x, t, poses, actions = sequence(40)
    other = x.clone()
    other[:, 0] += 1.0
    reach = {"none": 2 * 3, "window": 2 * (3 + 3), "full": None, "ssm": None}  # 2 layers; 3 = most of 2 chunks of 2
    for kind, frames in reach.items():
        made = network(replace(SMALL, memory=kind))
        change = (made(other, t, poses, actions)[0] - made(x, t, poses, actions)[0]).abs().amax((0, 2, 3, 4))
        seen = torch.nonzero(change > 0).flatten()
        assert int(seen[0]) == 0
        assert int(seen[-1]) == 39 if frames is None else 0 < int(seen[-1]) <= frames, kind


def reference_attention(layer: BandAttention, tokens: torch.Tensor) -> torch.Tensor:
    """Softmax over all frames with a mask, without torch's fused attention and without caches."""
    batch, frames, count, width = tokens.shape
    query, key, value = layer.qkv(tokens).unflatten(-1, (3, layer.heads, -1)).unbind(3)
    query, key = layer.norm_q(query).flatten(1, 2), layer.norm_k(key).flatten(1, 2)
    frame = torch.arange(frames).repeat_interleave(count)
    own, other = frame[:, None], frame[None]
    allowed = other <= own
    if layer.band == "window":
        allowed &= own - other < layer.reach
    if layer.band == "chunks":
        allowed &= own // layer.reach - other // layer.reach <= 1
    logits = torch.einsum("bqhd,bkhd->bhqk", query, key) / (width // layer.heads) ** 0.5
    weights = logits.masked_fill(~allowed, -torch.inf).softmax(-1)
    answer = torch.einsum("bhqk,bkhd->bqhd", weights, value.flatten(1, 2)).reshape(batch, frames, count, width)
    result: torch.Tensor = layer.out_proj(answer)
    return result


@pytest.mark.parametrize(
    ("band", "reach"), [("window", 1), ("window", 3), ("window", 20), ("chunks", 2), ("chunks", 5)]
)
def test_a_band_is_full_attention_with_a_mask(band, reach):
    layer = BandAttention(SMALL, band, reach).double()
    tokens = torch.randn(2, 37, SMALL.tokens, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(layer(tokens, None, 0)[0], reference_attention(layer, tokens), rtol=EXACT, atol=EXACT)


def test_full_attention_is_the_softmax_over_all_frames_up_to_the_own_one():
    layer = BandAttention(SMALL, "full").double()
    tokens = torch.randn(1, 37, SMALL.tokens, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(layer(tokens, None, 0)[0], reference_attention(layer, tokens), rtol=EXACT, atol=EXACT)


def test_blocks_are_scanned_each_by_itself():
    layer = SsmMixer(SMALL, 0).double()  # blocks of 2 x 2 of the 4 x 4 tokens
    tokens = torch.randn(1, 5, SMALL.tokens, 16, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    changed = tokens.clone()
    changed[:, 0, 0] += 1.0  # of the first block, tokens 0, 1, 4 and 5
    moved = (layer(changed, None, 0)[0] - layer(tokens, None, 0)[0]).abs().amax((0, 1, 3)) > 0
    assert torch.nonzero(moved).flatten().tolist() == [0, 1, 4, 5]
    whole = SsmMixer(replace(SMALL, block_sizes=(0,)), 0).double()
    assert ((whole(changed, None, 0)[0] - whole(tokens, None, 0)[0]).abs().amax((0, 1, 3)) > 0).all()


@pytest.mark.parametrize(("kind", "grows"), [("none", False), ("window", False), ("ssm", False), ("full", True)])
def test_the_state_has_a_constant_size_but_for_full_attention(kind, grows):
    made = network(replace(SMALL, memory=kind))
    state, sizes = made.start(2), []
    for index in range(9):
        sizes.append(state.size_bytes)
        _, state = made(*(part[:, index : index + 1] for part in sequence(9)), state)
    per_frame = SMALL.depth * 2 * 2 * SMALL.tokens * SMALL.hidden_size * 8  # layers, batch, keys and values
    assert sizes == [sizes[0] + (per_frame * index if grows else 0) for index in range(9)]


def test_kinds_have_about_the_same_size():
    counts = {
        kind: sum(parameter.numel() for parameter in SequenceDenoiser(SequenceSettings(memory=kind)).parameters())
        for kind in MEMORY_KINDS
    }
    assert max(counts.values()) < 1.05 * min(counts.values()), counts


def test_at_first_what_is_looked_at_is_added_as_it_is():
    attention = BandAttention(SMALL, "full").double()
    generator = torch.Generator().manual_seed(0)
    same = torch.randn(1, 1, 1, 16, generator=generator, dtype=torch.float64).expand(1, 3, SMALL.tokens, 16)
    torch.testing.assert_close(attention(same, None, 0)[0], same, rtol=1e-5, atol=1e-6)  # whatever the weights


def test_a_whole_turn_changes_no_pose_and_half_a_turn_the_odd_harmonics():
    turns = torch.tensor([0.0, 2.0 * torch.pi, torch.pi])
    poses = torch.stack([torch.ones(3), 2.0 * torch.ones(3), 0.3 + turns], -1)[None]
    for harmonics in (1, 2, 4):
        features = SequenceDenoiser(replace(SMALL, yaw_harmonics=harmonics))._pose_features(poses)[0]
        assert features.shape == (3, 4 * SMALL.pose_octaves + 2 * harmonics)
        torch.testing.assert_close(features[1], features[0], rtol=0, atol=1e-4)
        changed = (features[2] - features[0]).abs() > 1e-3
        assert int(changed.sum()) == 2 * ((harmonics + 1) // 2)


def test_at_first_attention_finds_the_frame_of_the_same_pose():
    """Among views that say nothing, the one at the pose of the newest frame counts most."""
    torch.manual_seed(0)
    made = SequenceDenoiser(SequenceSettings(memory="full", depth=1)).eval()
    poses = torch.zeros(1, 12, 3)
    poses[0, :, 0] = 1.2 * torch.arange(12)
    poses[0, 11] = poses[0, 4]
    tokens = made.place + made.pose_in_tokens(made._pose_features(poses))[:, :, None]
    layer, noise = made.layers[0].memory, torch.randn(16, 96, generator=torch.Generator().manual_seed(1))
    changes = []
    for index in range(11):
        marked = tokens.clone()
        marked[:, index] += 0.5 * noise
        changes.append(float((layer(marked, None, 0)[0] - layer(tokens, None, 0)[0])[:, 11].detach().norm()))
    assert max(range(11), key=changes.__getitem__) == 4, changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory": "lstm"}, "sequence.memory must be one of"),
        ({"local_frames": 5}, "local_frames must be even"),
        ({"block_sizes": (3,)}, "block_sizes must divide the 4 tokens"),
        ({"block_sizes": ()}, "names no size"),
        ({"hidden_size": 30}, "multiple of num_heads"),
        ({"patch_size": 3}, "multiple of patch_size"),
        ({"slowest_decay": 2.0}, "fastest_decay"),
    ],
)
def test_impossible_shapes_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        SequenceSettings(**changes)


def small_expert(frames: int = 5) -> tuple[SequenceExpert, RecurrentMemory, torch.Tensor, torch.Tensor]:
    schedule = NoiseSchedule.linear()
    owner = SequenceNetwork(network(SMALL), Normalizer.metric(2.0), schedule)
    memory = RecurrentMemory(owner)
    latents, _, poses, _ = sequence(frames, 1)
    for index in range(frames):
        memory.observe(latents[0, index], poses[0, index])
    return SequenceExpert(owner, memory), memory, latents, poses


def test_the_expert_answers_from_the_state_of_its_memory_and_without_it():
    expert, memory, latents, poses = small_expert()
    target = torch.tensor([0.4, -0.2, 0.3], dtype=torch.float64)
    x_t, t = sequence(3, 1)[0][0], torch.tensor([999, 400, 10])
    context = Context(latents[:, -1:], torch.zeros(1, 1, 3), torch.zeros(1, 1))
    before = memory.size_bytes
    eps, eps_bar = expert.scores(x_t, t, context, target.expand(3, 3), torch.ones(3))
    assert memory.frames == 5 and memory.size_bytes == before
    # the same by hand: all frames at once, the target as the sixth of them
    place = se2.relative(poses[:, :1], poses)
    moves = torch.zeros_like(place)
    moves[:, 1:] = se2.relative(poses[:, :-1], poses[:, 1:])
    pose = se2.compose(place[:, -1], target)
    abar = torch.as_tensor(NoiseSchedule.linear().alphas_cumprod)
    # (what enters the network: clean frames as they are, noisy ones times their share of signal)
    for row in range(3):
        x = torch.cat([latents, x_t[row][None, None]], 1)
        levels = torch.cat([torch.full((1, 5), CLEAN), t[row].view(1, 1)], 1)
        every_pose, every_move = torch.cat([place, pose[:, None]], 1), torch.cat([moves, target.view(1, 1, 3)], 1)
        v, _ = expert.network.velocity(x, levels, every_pose, every_move)
        noise = abar[t[row]].sqrt() * v[0, -1] + (1 - abar[t[row]]).sqrt() * x_t[row]
        torch.testing.assert_close(eps[row].double(), noise.double(), rtol=1e-5, atol=1e-5)
    alone, _ = expert.network.velocity(x_t[:, None], t[:, None], pose.expand(3, 1, 3), target.expand(3, 1, 3))
    wanted = abar[t][:, None, None, None].sqrt() * alone[:, 0] + (1 - abar[t])[:, None, None, None].sqrt() * x_t
    torch.testing.assert_close(eps_bar.double(), wanted.double(), rtol=1e-5, atol=1e-5)
    assert float((eps - eps_bar).detach().abs().max()) > 1e-3


def test_the_expert_can_be_composed_and_names_its_schedule():
    expert, *_ = small_expert()
    with_state, without = passes_of(expert)
    assert with_state.network is expert and with_state != without
    assert expert.schedule_digest == NoiseSchedule.linear().digest
