"""Each fast credit formula equals a slow loop written from its definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from codots.algorithm.balance import red, red_temperature
from codots.algorithm.baselines import earlier_rewards, group_mean, leave_one_out, regression
from codots.algorithm.credit import OPTIONS, PRESETS, Rewards, advantages, block_advantages, reward_to_go

repeatable = settings(derandomize=True, max_examples=60, deadline=None, database=None)
NAN = math.nan


@st.composite
def calls(draw, min_packs=1, missing=True):
    """Draw the four arrays of a call: solve and update rewards, solve and update tokens, with lives missing."""
    P, G, S = draw(st.integers(min_packs, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    solve = draw(arrays(float, (P, G, S), elements=st.sampled_from([0.0, 0.3, 0.92, 1.0, -0.1])))
    update = draw(arrays(float, (P, G, S - 1), elements=st.sampled_from([0.0, -0.1])))
    gone = draw(arrays(bool, (P, G), elements=st.sampled_from([missing, False, False, False])))
    solve[gone], update[gone] = NAN, NAN
    tokens = [draw(arrays(int, array.shape, elements=st.integers(1, 60))) for array in (solve, update)]
    return solve, update, *tokens


def slow_return(solve, update, kind, j, returns, window, gamma):
    """Return the reward-to-go of one episode of one life, by definition."""
    if returns == "coarse":
        return sum(solve) + sum(update)
    entries = list(solve[j:]) if kind == "solve" else [update[j], *solve[j + 1 :]]
    if returns == "window":
        entries = entries[:window]
    if returns == "discounted":
        return sum(gamma**k * value for k, value in enumerate(entries))
    return sum(entries) / (1 if returns == "sum" else len(entries))


def slow(solve, update, solve_tokens, update_tokens, returns, baseline, scale, balance, window=2, gamma=0.9):
    """Compute advantages with loops over dictionaries: {(pack, life, kind, position): value}."""
    P, G, S = solve.shape
    columns = [("solve", j) for j in range(S)] + [("update", j) for j in range(S - 1)]
    lives = {p: [g for g in range(G) if not math.isnan(solve[p, g, 0])] for p in range(P)}
    lives = {p: alive for p, alive in lives.items() if len(alive) >= 2}
    R, A, L = {}, {}, {}
    for p, alive in lives.items():
        for kind, j in columns:
            for g in alive:
                R[p, g, kind, j] = slow_return(solve[p, g], update[p, g], kind, j, returns, window, gamma)
                L[p, g, kind, j] = (solve_tokens if kind == "solve" else update_tokens)[p, g, j]
            for g in alive:
                others = [R[p, h, kind, j] for h in alive if h != g]
                everyone = [R[p, h, kind, j] for h in alive]
                expected = {"none": 0.0, "group": np.mean(everyone), "leave-one-out": np.mean(others)}[baseline]
                A[p, g, kind, j] = R[p, g, kind, j] - expected
                if scale == "std":
                    A[p, g, kind, j] /= np.std(everyone, ddof=1) + 1e-6
    if scale == "rms":
        for column in columns:
            keys = [key for key in A if key[2:] == column]
            rms = math.sqrt(sum(A[key] ** 2 for key in keys) / max(len(keys), 1))
            A |= {key: A[key] / max(rms, 1e-6) for key in keys}
    return slow_balance(A, L, balance), R


def slow_balance(A, L, balance):
    m = sum(L[key] * A[key] for key in A)
    negative = m < -1e-6 * sum(L[key] * abs(A[key]) for key in A)
    if balance == "red" and negative:
        low, high = 0.8, 100.0
        for _ in range(20):
            if high - low <= 0.05:
                break
            T = (low + high) / 2
            if sum(L[key] * A[key] * math.exp(A[key] / T) for key in A) > 0:
                low = T
            else:
                high = T
        return {key: A[key] * math.exp(A[key] / ((low + high) / 2)) for key in A}
    if balance == "shift" and negative:
        return {key: A[key] - m / sum(L.values()) for key in A}
    if balance == "length-neutral" and A:
        return {key: A[key] * np.mean(list(L.values())) / L[key] for key in A}
    return A


def spread(values, solve, update):
    """Return the values of a slow dictionary as two arrays, 0 where it has none."""
    out = {"solve": np.zeros(solve.shape), "update": np.zeros(update.shape)}
    for (p, g, kind, j), value in values.items():
        out[kind][p, g, j] = value
    return out["solve"], out["update"]


def assert_equals_slow(call, fast, **choices):
    values, _ = slow(*call, **choices)
    solve, update = spread(values, *call[:2])
    np.testing.assert_allclose(fast.solve_PGS, solve, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fast.update_PGS, update, rtol=1e-9, atol=1e-9)


any_choices = {
    "returns": st.sampled_from(OPTIONS["returns"]),
    "baseline": st.sampled_from(["group", "leave-one-out", "none"]),
    "scale": st.sampled_from(OPTIONS["scale"]),
    "balance": st.sampled_from(OPTIONS["balance"]),
    "window": st.integers(1, 5),
    "gamma": st.floats(0, 1),
}


@settings(repeatable, max_examples=400)
@given(calls(), st.fixed_dictionaries(any_choices))
def test_any_combination_of_choices_equals_the_slow_loop(call, choices):
    assert_equals_slow(call, advantages(*call, **choices), **choices)


@repeatable
@given(calls())
def test_paper_preset_is_mean_group_no_scale_and_red(call):
    assert_equals_slow(call, advantages(*call), returns="mean", baseline="group", scale="none", balance="red")


def test_paper_preset_on_a_life_worked_out_by_hand():
    solve, update = [[[1.0, 0.0], [0.0, 1.0]]], [[[-0.1], [0.0]]]
    got = advantages(solve, update, [[[10, 10], [10, 10]]], [[[10], [10]]])
    np.testing.assert_allclose(got.solve_PGS, [[[0.0, -0.5], [0.0, 0.5]]], atol=1e-15)
    np.testing.assert_allclose(got.update_PGS, [[[-0.275], [0.275]]], atol=1e-15)
    assert got.metrics["credit/red_active"] == 0


def test_returns_are_the_vectors_of_the_paper():
    solve, update = np.array([[[1.0, 2.0, 4.0]]]), np.array([[[0.5, 0.25]]])
    expected = {
        "sum": [7, 6, 4, 6.5, 4.25],
        "mean": [7 / 3, 3, 4, 6.5 / 3, 4.25 / 2],
        "window": [1.5, 3, 4, 1.25, 2.125],
        "discounted": [1 + 1 + 1, 2 + 2, 4, 0.5 + 1 + 1, 0.25 + 2],
        "coarse": [7.75] * 5,
    }
    for returns, values in expected.items():
        np.testing.assert_allclose(reward_to_go(solve, update, returns, window=2, gamma=0.5)[0, 0], values)


@repeatable
@given(calls())
def test_gae_with_a_position_mean_value_is_discounted_by_gamma_times_lambda(call):
    """Why "gae" is no choice: its general loop, with V the mean discounted return of the others, adds nothing."""
    solve, update, *_ = call
    P, G, S = solve.shape
    gamma, lam = 0.9, 0.7
    fast = advantages(solve, update, preset="discounted", gamma=gamma * lam)
    for p in range(P):
        alive = [g for g in range(G) if not math.isnan(solve[p, g, 0])]
        for g in alive if len(alive) > 1 else []:
            others = [h for h in alive if h != g]
            V = [
                np.mean([slow_return(solve[p, h], update[p, h], "solve", j, "discounted", 0, gamma) for h in others])
                for j in range(S)
            ] + [0.0]
            gae = 0.0
            for j in reversed(range(S)):
                if j < S - 1:  # the update after task j, followed by task j + 1
                    V_update = np.mean([update[p, h, j] for h in others]) + gamma * V[j + 1]
                    of_update = update[p, g, j] + gamma * V[j + 1] - V_update + gamma * lam * gae
                    assert fast.update_PGS[p, g, j] == pytest.approx(of_update, abs=1e-9)
                gae = solve[p, g, j] + gamma * V[j + 1] - V[j] + gamma * lam * gae
                assert fast.solve_PGS[p, g, j] == pytest.approx(gae, abs=1e-9)


@repeatable
@given(calls(missing=False))
def test_leave_one_out_is_the_group_mean_advantage_times_n_over_n_minus_1(call):
    G = call[0].shape[1]
    group = advantages(*call, preset="leave-one-out", baseline="group")
    alone = advantages(*call, preset="leave-one-out")
    np.testing.assert_allclose(alone.solve_PGS, group.solve_PGS * G / max(G - 1, 1), atol=1e-12)
    np.testing.assert_allclose(alone.update_PGS, group.update_PGS * G / max(G - 1, 1), atol=1e-12)


@repeatable
@given(calls())
def test_regression_equals_a_slow_fit_on_the_other_packs(call):
    solve, G = call[0], call[0].shape[1]
    fast = advantages(*call, preset="sum", baseline="regression")
    values, R = slow(*call, "sum", "leave-one-out", "none", "none")

    def feature(p, g, kind, j):
        seen = solve[p, g, : j + (kind == "update")]
        return seen.mean() if len(seen) else 0.0

    def minus_others(of, p, g, *column):
        return of(p, g, *column) - np.mean([of(p, h, *column) for h in range(G) if h != g and (p, h, *column) in R])

    for (p, g, *column), value in values.items():
        fitted = [key for key in R if key[0] != p and list(key[2:]) == column]
        x = np.array([minus_others(feature, *key) for key in fitted])
        y = np.array([minus_others(lambda *key: R[key], *key) for key in fitted])
        slope = (x @ y) / (x @ x) if (x @ x) > 1e-6 else 0.0
        got = (fast.solve_PGS if column[0] == "solve" else fast.update_PGS)[p, g, column[1]]
        assert got == pytest.approx(value - slope * minus_others(feature, p, g, *column), abs=1e-9)


def test_regression_never_lets_a_return_into_its_own_baseline():
    rng = np.random.default_rng(0)
    returns, features, used = rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 4, 5)), np.ones((3, 4, 1), dtype=bool)
    before = regression(returns, features, used)
    returns[1, 2, 3] += 10
    assert (regression(returns, features, used) - before)[1, 2, 3] == pytest.approx(10)


def test_regression_removes_what_earlier_rewards_predict():
    skill = np.random.default_rng(0).uniform(size=(20, 8, 1))  # a life that starts well goes on well
    solve, update = np.repeat(skill, 4, axis=2), np.zeros((20, 8, 3))
    plain = advantages(solve, update, preset="sum")
    fitted = advantages(solve, update, preset="sum", baseline="regression")
    assert np.abs(plain.solve_PGS[..., 1:]).mean() > 0.1
    np.testing.assert_allclose(fitted.solve_PGS[..., 1:], 0, atol=1e-9)
    np.testing.assert_array_equal(fitted.solve_PGS[..., 0], plain.solve_PGS[..., 0])


def test_regression_with_one_pack_is_leave_one_out():
    rng = np.random.default_rng(0)
    values, used = rng.normal(size=(1, 4, 5)), np.ones((1, 4, 1), dtype=bool)
    np.testing.assert_array_equal(regression(values, rng.normal(size=(1, 4, 5)), used), leave_one_out(values, used))


def test_regression_ignores_features_that_differ_by_rounding():
    rng = np.random.default_rng(0)
    returns, used = rng.normal(size=(3, 7, 5)), np.ones((3, 7, 1), dtype=bool)
    features = 0.93 + 1e-15 * rng.integers(-1, 2, size=(3, 7, 5))
    np.testing.assert_allclose(regression(returns, features, used), leave_one_out(returns, used), atol=1e-12)


def test_baselines_use_only_used_lives():
    values, used = np.array([[[1.0], [2.0], [99.0], [6.0]]]), np.array([[[True], [True], [False], [True]]])
    assert group_mean(values, used).ravel().tolist() == [-2, -1, 0, 3]
    assert leave_one_out(values, used).ravel().tolist() == [-3, -1.5, 0, 4.5]


def test_features_are_known_before_the_episode():
    assert earlier_rewards(np.array([[[1.0, 0.0, 5.0]]])).tolist() == [[[0, 1, 0.5, 1, 0.5]]]


@repeatable
@given(calls())
def test_rms_scale_gives_every_kind_and_position_the_same_size_whatever_the_length_of_the_pack(call):
    got = advantages(*call[:2], preset="codots")
    present = ~np.isnan(call[0][..., 0])
    n = present[present.sum(axis=1) >= 2].sum()
    for array in (got.solve_PGS, got.update_PGS):
        for column in np.moveaxis(array, 2, 0):
            size = math.sqrt((column**2).sum() / max(n, 1))
            assert size == pytest.approx(1) or size == pytest.approx(0, abs=1e-8)


def test_scales_do_not_amplify_rounding():
    solve = np.full((2, 7, 3), 0.93)  # seven times 0.93 over seven is not quite 0.93
    for scale in OPTIONS["scale"]:
        got = advantages(solve, np.full((2, 7, 2), -0.1), preset="codots", scale=scale)
        assert np.abs(got.solve_PGS).max() < 1e-8
        assert got.metrics["credit/zero_signal_groups"] == 1


def test_red_leaves_a_token_mean_that_is_not_negative_alone():
    assert red_temperature(np.array([1.0, -1.0]), np.array([5.0, 5.0])) is None
    assert red_temperature(np.array([1.0, -1.0]), np.array([6.0, 5.0])) is None


def test_red_finds_the_temperature_that_balances_the_tokens():
    A, L = np.array([0.9, 0.1, -0.4, -0.6]), np.array([10.0, 10.0, 12.0, 15.0])
    temperature = red_temperature(A, L)
    assert (L * red(A, temperature - 0.05)).sum() > 0 > (L * red(A, temperature + 0.05)).sum()


def test_red_stops_at_its_floor_when_no_temperature_balances():
    A, L = np.array([0.1, -0.1]), np.array([1.0, 100.0])
    temperature = red_temperature(A, L)
    assert 0.8 <= temperature <= 0.85
    assert (L * red(A, temperature)).sum() < 0


def test_red_is_not_triggered_by_rounding():
    A = np.array([0.1, 0.2, -0.3])  # their sum is 0, but not in floating point
    assert any((A * sign).sum() < 0 for sign in (1, -1))
    assert all(red_temperature(A * sign, np.ones(3)) is None for sign in (1, -1))


@repeatable
@given(calls())
def test_red_metrics_describe_what_was_done(call):
    solve, update, *tokens = call
    metrics = advantages(*call).metrics
    untouched = advantages(*call, balance="none")
    L = np.concatenate(tokens, axis=2) * ~np.isnan(np.concatenate([solve, update], axis=2))
    L[(~np.isnan(solve[..., 0])).sum(axis=1) < 2] = 0
    A = np.concatenate([untouched.solve_PGS, untouched.update_PGS], axis=2)
    assert metrics["credit/token_mean_before"] == pytest.approx((L * A).sum() / max(L.sum(), 1), abs=1e-12)
    assert ("credit/red_temperature" in metrics) == bool(metrics["credit/red_active"])
    if metrics["credit/red_active"]:
        assert metrics["credit/token_mean_before"] < 0
        assert metrics["credit/token_mean_after"] > metrics["credit/token_mean_before"]
    else:
        assert metrics["credit/token_mean_after"] == metrics["credit/token_mean_before"]


@repeatable
@given(calls())
def test_shift_leaves_no_negative_token_mean(call):
    metrics = advantages(*call, balance="shift").metrics
    expected = max(metrics["credit/token_mean_before"], 0)
    assert metrics["credit/token_mean_after"] == pytest.approx(expected, abs=1e-12)


@repeatable
@given(calls())
def test_length_neutral_makes_an_episodes_total_weight_independent_of_its_length(call):
    plain, neutral = (advantages(*call, preset="length-neutral", balance=b) for b in ("none", "length-neutral"))
    tokens, alive = call[2:], ~np.isnan(call[0][..., 0])
    counted = np.concatenate(tokens, axis=2)[alive & (alive.sum(axis=1, keepdims=True) >= 2)]
    mean = counted.mean() if counted.size else 0.0
    np.testing.assert_allclose(neutral.solve_PGS * tokens[0], plain.solve_PGS * mean, atol=1e-9)
    np.testing.assert_allclose(neutral.update_PGS * tokens[1], plain.update_PGS * mean, atol=1e-9)


def test_length_neutral_leaves_an_episode_without_tokens_finite():
    got = advantages([[[1.0], [0.0]]], np.zeros((1, 2, 0)), [[[0], [4]]], np.zeros((1, 2, 0)), balance="length-neutral")
    assert np.isfinite(got.solve_PGS).all()


@repeatable
@given(calls())
def test_coarse_credit_is_the_same_for_every_episode_of_a_life(call):
    got = advantages(*call, preset="coarse")
    for array in (got.solve_PGS, got.update_PGS):
        np.testing.assert_allclose(array, np.broadcast_to(got.solve_PGS[..., :1], array.shape), atol=1e-12)


@repeatable
@given(calls(missing=False), st.sampled_from(sorted(PRESETS)), st.sampled_from(OPTIONS["baseline"]))
def test_missing_lives_change_only_their_own_rows(call, preset, baseline):
    with_missing = [np.insert(array.astype(float), [0, 1], NAN, axis=1) for array in call]
    whole, holed = (advantages(*arrays, preset=preset, baseline=baseline) for arrays in (call, with_missing))
    for full, sparse in ((whole.solve_PGS, holed.solve_PGS), (whole.update_PGS, holed.update_PGS)):
        np.testing.assert_allclose(np.delete(sparse, [0, 2], axis=1), full, rtol=1e-9, atol=1e-12)
        assert (sparse[:, [0, 2]] == 0).all()
    assert holed.metrics.pop("credit/missing_lives") == 2 * len(call[0])
    assert whole.metrics.pop("credit/missing_lives") == 0
    assert holed.metrics == pytest.approx(whole.metrics, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("baseline", OPTIONS["baseline"])
def test_a_group_of_fewer_than_two_lives_gives_zero(preset, baseline):
    solve = np.array([[[1.0, 0.0], [NAN, NAN]], [[NAN, NAN], [NAN, NAN]], [[1.0, 0.0], [0.0, 1.0]]])
    update = np.array([[[-0.1], [NAN]], [[NAN], [NAN]], [[0.0], [0.0]]])
    got = advantages(solve, update, np.ones(solve.shape), np.ones(update.shape), preset=preset, baseline=baseline)
    assert (got.solve_PGS[:2] == 0).all()
    assert (got.update_PGS[:2] == 0).all()
    assert got.metrics["credit/missing_lives"] == 3
    assert got.metrics["credit/groups_used"] == 1


@pytest.mark.parametrize("preset", PRESETS)
def test_a_call_without_a_single_life_gives_zeros_and_finite_metrics(preset):
    for P in (0, 2):
        solve, update = np.full((P, 3, 2), NAN), np.full((P, 3, 1), NAN)
        got = advantages(solve, update, solve, update, preset=preset)
        assert (got.solve_PGS == 0).all()
        assert got.solve_PGS.shape == solve.shape
        assert got.update_PGS.shape == update.shape
        assert np.isfinite(list(got.metrics.values())).all()


def test_a_partly_missing_life_is_an_error_that_names_it():
    solve, update = np.zeros((2, 3, 2)), np.zeros((2, 3, 1))
    solve[1, 2, 0] = NAN
    with pytest.raises(ValueError, match="life 2 of pack 1 is partly missing"):
        advantages(solve, update)
    solve[1, 2], update[1, 2] = NAN, 0.0  # all solves gone, the update there
    with pytest.raises(ValueError, match="life 2 of pack 1 is partly missing"):
        advantages(solve, update)


@pytest.mark.parametrize("balance", ["red", "shift", "length-neutral"])
def test_a_balance_without_token_counts_is_an_error(balance):
    solve, update = np.zeros((1, 2, 2)), np.zeros((1, 2, 1))
    for tokens in ({}, {"solve_tokens_PGS": solve}):
        with pytest.raises(ValueError, match=f"balance '{balance}' weighs episodes by length"):
            advantages(solve, update, balance=balance, **tokens)


def test_wrong_arrays_are_errors():
    solve, update = np.zeros((1, 2, 2)), np.zeros((1, 2, 1))
    with pytest.raises(ValueError, match=r"rewards must be \(P, G, S\) and \(P, G, S-1\)"):
        advantages(solve, solve)
    with pytest.raises(ValueError, match="token counts must have the shapes"):
        advantages(solve, update, np.ones((1, 2, 3)), np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="be 0 or more"):
        advantages(solve, update, solve + NAN, update)
    with pytest.raises(ValueError, match="finite"):
        advantages(solve + math.inf, update)


def test_the_input_rewards_are_not_modified():
    solve, update = np.array([[[1.0, 0.0], [NAN, NAN]]]), np.array([[[-0.1], [NAN]]])
    copies = solve.copy(), update.copy()
    advantages(solve, update, preset="codots")
    np.testing.assert_array_equal(solve, copies[0])
    np.testing.assert_array_equal(update, copies[1])


@pytest.mark.parametrize(
    ("choices", "line"),
    [
        ({"preset": "papers"}, "unknown preset 'papers'; expected one of coarse, codots, .* the nearest is 'paper'"),
        ({"return": "mean"}, "unknown credit option 'return'; expected one of balance, .* the nearest is 'returns'"),
        ({"baseline": "leave_one_out"}, "unknown baseline 'leave_one_out'; .* the nearest is 'leave-one-out'"),
        ({"scale": None}, "unknown scale None; .* the nearest is 'none'"),
        (
            {"balance": "RED"},
            "unknown balance 'RED'; expected one of length-neutral, none, red, shift; the nearest is 'red'",
        ),
        ({"window": 0}, "need window >= 1"),
        ({"gamma": 1.5}, "need window >= 1 and 0 <= gamma <= 1, got 2 and 1.5"),
    ],
)
def test_an_unknown_option_is_a_one_line_error_with_the_nearest(choices, line):
    with pytest.raises(ValueError, match=line) as error:
        advantages(np.zeros((1, 2, 2)), np.zeros((1, 2, 1)), **choices)
    assert "\n" not in str(error.value)


# Mixtures: one block for each entry, of any S.


@st.composite
def mixtures(draw):
    """Draw one to three blocks of arrays, of any shapes."""
    return [draw(calls()) for _ in range(draw(st.integers(1, 3)))]


def of_blocks(blocks, **choices):
    return block_advantages([Rewards(*call) for call in blocks], **choices)


@repeatable
@given(mixtures(), st.sampled_from(sorted(PRESETS)), st.sampled_from(OPTIONS["baseline"]))
def test_return_baseline_and_scale_stay_inside_a_block(blocks, preset, baseline):
    found = of_blocks(blocks, preset=preset, baseline=baseline, balance="none")
    for got, call in zip(found, blocks, strict=True):
        alone = advantages(*call, preset=preset, baseline=baseline, balance="none")
        np.testing.assert_array_equal(got.solve_PGS, alone.solve_PGS)
        np.testing.assert_array_equal(got.update_PGS, alone.update_PGS)


def scopes_of(blocks, scope):
    """Keys (block, pack) by the scope they are balanced in."""
    packs = [(b, p) for b, call in enumerate(blocks) for p in range(len(call[0]))]
    named = {"step": lambda b, p: 0, "world": lambda b, p: b, "pack": lambda b, p: (b, p)}[scope]
    return [[key for key in packs if named(*key) == name] for name in dict.fromkeys(named(*key) for key in packs)]


@settings(repeatable, max_examples=120)
@given(mixtures(), st.sampled_from(OPTIONS["scope"]), st.sampled_from(OPTIONS["balance"]))
def test_the_balance_acts_on_all_episodes_of_its_scope_as_a_slow_loop_does(blocks, scope, balance):
    plain = [slow(*call, "mean", "group", "none", "none")[0] for call in blocks]
    lengths = [
        {key: int((t[0] if key[2] == "solve" else t[1])[key[0], key[1], key[3]]) for key in A}
        for A, t in zip(plain, (call[2:] for call in blocks), strict=True)
    ]
    expected = [{} for _ in blocks]
    for packs in scopes_of(blocks, scope):
        A = {(b, *key): a for b, p in packs for key, a in plain[b].items() if key[0] == p}
        L = {(b, *key): lengths[b][key] for b, *key in A for key in [tuple(key)]}
        for (b, *key), a in slow_balance(A, L, balance).items():
            expected[b][tuple(key)] = a
    found = of_blocks(blocks, preset="paper", scope=scope, balance=balance)
    for got, values, call in zip(found, expected, blocks, strict=True):
        solve, update = spread(values, *call[:2])
        np.testing.assert_allclose(got.solve_PGS, solve, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(got.update_PGS, update, rtol=1e-9, atol=1e-9)


@repeatable
@given(mixtures())
def test_metrics_of_a_mixture_count_all_its_blocks(blocks):
    found = of_blocks(blocks, preset="codots")
    assert all(got.metrics == found[0].metrics for got in found)
    alone = [advantages(*call, preset="codots") for call in blocks]
    for name in ("credit/missing_lives", "credit/groups_used"):
        assert found[0].metrics[name] == sum(one.metrics[name] for one in alone)
    values = np.concatenate([np.abs(got.solve_PGS).ravel() for got in found])
    there = [~np.isnan(call[0][..., 0]) for call in blocks]
    used = [np.where(p.sum(1, keepdims=True) >= 2, p, False)[..., None] for p in there]
    weights = np.concatenate([np.broadcast_to(u, a[0].shape).ravel() for u, a in zip(used, blocks, strict=True)])
    assert found[0].metrics["credit/solve_abs"] == pytest.approx((values * weights).sum() / max(weights.sum(), 1))
