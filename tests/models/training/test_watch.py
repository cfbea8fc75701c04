import numpy as np
import pytest

from models.training.watch import CollapseWatch, measure_spread


def noise(count: int, spread: float, side: int = 16) -> np.ndarray:
    """Grey pictures that differ from each other by `spread` levels, uint8 (count, side, side, 3)."""
    rng = np.random.default_rng(0)
    return np.clip(128 + rng.normal(0, spread, (count, side, side, 3)), 0, 255).round().astype(np.uint8)


def test_spread_is_the_mean_root_of_squared_differences_over_all_pairs() -> None:
    pictures = noise(5, 20)
    flat = pictures.reshape(5, -1).astype(float)
    pairs = [np.sqrt(((flat[i] - flat[j]) ** 2).mean()) for i in range(5) for j in range(i)]
    assert measure_spread(pictures) == pytest.approx(np.mean(pairs))
    assert measure_spread(np.repeat(pictures[:1], 3, axis=0)) == pytest.approx(0, abs=1e-4)
    with pytest.raises(ValueError, match="at least two"):
        measure_spread(pictures[:1])


def test_spread_is_of_layout_and_not_of_detail() -> None:
    detail = np.zeros((4, 64, 64, 3), np.uint8)
    detail[:, ::2, ::2] = 255
    detail[1, :, :] = np.roll(detail[0], 1, axis=0)
    assert measure_spread(detail) == pytest.approx(0, abs=1)


def test_a_fall_is_said_once_and_again_after_it_has_recovered() -> None:
    watch = CollapseWatch(measure_spread(noise(16, 40)))
    said = [watch.look(noise(16, spread)) for spread in (2, 30, 40, 30, 10, 8, 35, 5)]
    assert [len(warnings) for warnings in said] == [0, 0, 0, 0, 1, 0, 0, 1]
    assert "become alike" in said[4][0] and 0.9 < watch.highest <= 1.0


def test_a_generator_that_has_made_nothing_yet_has_not_collapsed() -> None:
    watch = CollapseWatch(measure_spread(noise(16, 40)))
    assert [watch.look(noise(16, spread)) for spread in (8, 2, 1, 1)] == [[], [], [], []]


def test_coming_down_from_wilder_pictures_than_the_reals_is_no_fall() -> None:
    watch = CollapseWatch(measure_spread(noise(16, 20)))
    assert [watch.look(noise(16, spread)) for spread in (60, 40, 18, 12)] == [[], [], [], []]
    assert watch.highest == 1.0
    assert len(watch.look(noise(16, 8))) == 1


def test_a_certain_discriminator_is_said_after_some_ticks_in_a_row() -> None:
    watch = CollapseWatch(1.0)
    certain, unsure = {"sign_D_real": 0.99, "sign_D_fake": -0.98}, {"sign_D_real": 0.6, "sign_D_fake": -0.98}
    said = [watch.judge(stats) for stats in (certain, certain, unsure, certain, certain, certain, certain)]
    assert [len(warnings) for warnings in said] == [0, 0, 0, 0, 0, 1, 0]
    assert watch.judge({"loss": 1.0}) == []


def test_a_discriminator_of_pairs_is_judged_by_pairs() -> None:
    """Its logits have no zero: both kinds may be far above it."""
    watch = CollapseWatch(1.0)
    said = [watch.judge({"sign_D_pair": pair, "logit_real": 80.0}) for pair in (0.98, 0.999, 0.97, 0.998, 1.0, 0.995)]
    assert [len(warnings) for warnings in said] == [0, 0, 0, 0, 0, 1]
    assert "0.995 on real minus fake" in said[-1][0]


def test_a_resumed_watch_says_what_an_undisturbed_one_would() -> None:
    first = CollapseWatch(measure_spread(noise(16, 40)))
    first.look(noise(16, 40))
    first.judge({"sign_D_real": 0.99, "sign_D_fake": -0.98})
    second = CollapseWatch(0.0)
    second.load_state_dict(first.state_dict())
    assert second == first
    assert len(second.look(noise(16, 5))) == len(first.look(noise(16, 5))) == 1
