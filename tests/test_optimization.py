"""The parts of a training step: schedule, weight decay, losses, linear probe, seeds, precision."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

import config
import train
from dataset import batches, build_eval_loader
from model import MODELS, build_model, complete, head_name, parameter_groups
from tests.conftest import NAMES
from tests.training_runs import same, settings, weights, write_weights
from training.linear_probe import build_views, fit_linear, fit_linear_probe
from training.optimization import (
    build_criterion,
    build_forward,
    build_mix,
    build_optimizer,
    optimizer_state,
    read_balance,
    trains_in_bfloat16,
)
from training.runs import clearly_worse
from utils import InputError

NORMS = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.LayerNorm)


# ---- schedule ----

def rates(s, steps_per_epoch, last=None):
    """Return the learning rate of every step of a run, or of what is left of one."""
    model = build_model("plain_cnn", 3)
    if last:
        last = {**last, "optimizer_state_dict": torch.optim.AdamW(model.parameters()).state_dict()}
    optimizer, scheduler = build_optimizer(s, model, [], steps_per_epoch, last)
    done, found = last["epoch"] if last else 0, []
    for _ in range(steps_per_epoch * (s.num_epochs - done)):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_the_rate_rises_linearly_and_then_falls_along_a_cosine_to_zero():
    s = config.namespace(num_epochs=6, warmup_epochs=2.0, backbone_learning_rate=0.5,
                         layer_decay=1.0)
    found = rates(s, 10)
    rise, fall = found[:20], found[20:]
    assert rise == pytest.approx([0.5 * (step + 1) / 21 for step in range(20)])
    assert fall[0] == pytest.approx(0.5)
    assert fall[20] == pytest.approx(0.25)  # half of the way down
    assert fall[10] == pytest.approx(0.5 * (1 + np.sqrt(0.5)) / 2)
    assert fall == sorted(fall, reverse=True)
    assert 0 < fall[-1] < 0.5 * 0.002


def step_with_marks(s):
    """Return (network, AdamW) after a step; each parameter's moments are its place in the model."""
    model = build_model("plain_cnn", 3)
    optimizer, _ = build_optimizer(s, model, [], 10, None)
    for place, parameter in enumerate(model.parameters()):
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.state[parameter]["exp_avg"].fill_(place)
        optimizer.state[parameter]["exp_avg_sq"].fill_(place)
        parameter.grad = None
    return model, optimizer


def marks_of(optimizer, model):
    """Return the marks of `step_with_marks` in the order of the model."""
    return [optimizer.state[parameter]["exp_avg"].unique().tolist()
            for parameter in model.parameters()]


@pytest.mark.parametrize("layer_decay", [1.0, 0.8])
def test_moments_are_resumed_by_the_name_of_their_parameter(layer_decay):
    """Layer decay changes the order of AdamW's parameters; by position it once crashed."""
    s = config.namespace(backbone_learning_rate=1e-3)
    model, optimizer = step_with_marks(s)
    last = {"epoch": 1, "optimizer_state_dict": optimizer_state(optimizer, model)}
    changed = config.namespace(backbone_learning_rate=1e-3, layer_decay=layer_decay)
    again = build_model("plain_cnn", 3)
    resumed, _ = build_optimizer(changed, again, [], 10, last)
    assert marks_of(resumed, again) == [[place] for place in range(len(list(model.parameters())))]
    assert all(state["step"] == 1 for state in resumed.state.values())


def test_moments_of_another_shape_are_refused():
    model, optimizer = step_with_marks(config.namespace(backbone_learning_rate=1e-3))
    last = {"epoch": 1, "optimizer_state_dict": optimizer_state(optimizer, model)}
    with pytest.raises(InputError, match=r"18\.weight"):  # the head has five classes now
        build_optimizer(config.namespace(backbone_learning_rate=1e-3),
                        build_model("plain_cnn", 5), [], 10, last)


def test_a_run_without_warmup_starts_at_the_peak():
    s = config.namespace(num_epochs=3, warmup_epochs=0.0, backbone_learning_rate=0.5,
                         layer_decay=1.0)
    assert rates(s, 5)[0] == 0.5


def test_a_resumed_schedule_continues_where_it_was():
    s = config.namespace(num_epochs=5, warmup_epochs=1.0, backbone_learning_rate=1e-3,
                         layer_decay=1.0)
    assert rates(s, 4, last={"epoch": 2}) == pytest.approx(rates(s, 4)[8:], abs=0)


@pytest.mark.parametrize("flag, peaks", [("--linear_probe", {0.25}),
                                         ("--no-linear_probe", {0.25, 0.5})])
def test_a_head_that_the_probe_has_fitted_has_the_rate_of_the_backbone(folder, flag, peaks):
    s = settings(folder, "--initial_weights", write_weights(folder), "--learning_rate", "0.5",
                 "--backbone_learning_rate", "0.25", "--layer_decay", "1", flag)
    data = train.build_data(s)
    run = train.build_run(s, data, *train.build_facts(s, data))
    assert {group["initial_lr"] for group in run.optimizer.param_groups} == peaks


# ---- weight decay ----

@pytest.mark.parametrize("name", MODELS)
def test_norms_and_biases_get_no_weight_decay(name):
    with torch.device("meta"):
        model = build_model(name, 3)
    groups = parameter_groups(model, set(), 1.0, 0.1, weight_decay=0.5)
    decay = {parameter: group["weight_decay"] for group in groups for parameter in group["params"]}
    for module in model.modules():
        for key, parameter in module.named_parameters(recurse=False):
            if isinstance(module, NORMS) or key == "bias":
                assert decay[parameter] == 0.0
            elif isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
                assert decay[parameter] == 0.5


# ---- seeds ----

def test_every_step_of_every_epoch_has_its_own_random_numbers(folder):
    """Dropout meets the same ones in another run of the command, others with another seed."""
    def states(*more):
        found = []

        def record(module, inputs):
            if isinstance(module, torch.nn.Dropout) and module.training:
                found.append(torch.get_rng_state().numpy().tobytes())
        hook = torch.nn.modules.module.register_module_forward_pre_hook(record)
        try:
            train.train(settings(folder, "--num_epochs", "2", *more))
        finally:
            hook.remove()
        return found
    first = states()
    assert len(first) == len(set(first)) == 6
    assert states("--run", "again") == first
    assert not set(states("--run", "other", "--seed", "1")) & set(first)


def test_weights_that_start_random_are_a_function_of_the_seed(folder):
    def start(seed):
        s = settings(folder, "--seed", seed)
        data = train.build_data(s)
        return train.build_run(s, data, *train.build_facts(s, data)).model.state_dict()
    first = start(1)
    assert same(start(1), first)
    assert not any(torch.equal(value, first[key]) for key, value in start(2).items()
                   if key in ("0.weight", "18.weight"))


# ---- linear probe ----

def test_the_views_of_the_linear_probe(folder, capsys):
    """The first is that of evaluation, the second its mirror image, the others all differ."""
    s, device = settings(folder, "--probe_views", "4", "--batch_size", "999"), torch.device("cpu")
    table = train.build_data(s).train_table
    plain, mirrored, *augmented = [images for images, _ in build_views(s, table, None, device)()]
    (expected, _), = batches(build_eval_loader(table, s), device, s.mean, s.std)
    assert torch.equal(plain, expected)
    assert torch.equal(mirrored, plain.flip(3))
    assert len(augmented) == 2
    assert "--batch_size" not in capsys.readouterr().err  # training warns of it, once
    for view, others in zip(augmented, (augmented[1], plain), strict=True):
        distances = (view.flatten(1)[:, None] - others.flatten(1)[None]).abs().amax(2)
        assert distances.min() > 0.1  # no photograph looks the same, in whatever order


def test_the_linear_probe_is_a_minimum():
    """The slope of the loss at the fitted weights is that of their decay."""
    torch.manual_seed(0)
    features, labels = torch.randn(60, 5), torch.randint(0, 3, (60,))
    criterion = build_criterion("weights", pd.Series(labels.numpy()), 3)
    start = torch.zeros(3, 5), torch.zeros(3)
    weight, bias, loss = fit_linear(features, labels, *start, criterion, 0.1)
    weight.requires_grad_()
    bias.requires_grad_()
    found = criterion(features @ weight.T + bias, labels)
    found.backward()
    assert loss == pytest.approx(found.item())
    assert torch.allclose(weight.grad, -0.1 * weight.detach(), atol=1e-4)
    assert bias.grad.abs().max() < 1e-4


def test_the_weight_decay_of_the_probe_is_chosen_on_validation():
    """Labels at random on training: the strongest decay; the same labels everywhere: a weak one.

    Validation is centred and averaged with its mirror images as predictions are.
    """
    torch.manual_seed(0)
    left, labels = 3 + torch.randn(90, 3, 2, 1), torch.randint(0, 3, (90,))
    images = torch.cat([left, torch.zeros_like(left)], 3)
    criterion = build_criterion("none", pd.Series(labels.numpy()), 3)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))

    def decay(val_images, val_labels, flip_tta=False):
        val_batches = [(val_images, val_labels)]
        return fit_linear_probe(model, [(images, labels)], val_batches, criterion, flip_tta)[1]
    noise = decay(torch.randn(90, 3, 2, 2), torch.randint(0, 3, (90,)))
    assert noise > decay(images, labels)
    error = 9 * torch.randn_like(left)  # it cancels out in the mean of image and mirror image
    lopsided = torch.cat([left + error, left - error], 3)
    assert decay(lopsided, labels) > decay(lopsided, labels, flip_tta=True) == decay(images, labels)


def test_the_linear_probe_weights_classes_where_training_repeats_them(folder):
    """Its views are all photographs once, also those that are augmented."""
    table = folder / "dataset/train_labels.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:-5]))  # of the last class three are left
    heads = {}
    for balance in ("none", "weights", "oversample", "sampling"):
        train.train(settings(folder, "--initial_weights", write_weights(folder), "--balance",
                             balance, "--num_epochs", "0", "--run", balance))
        heads[balance] = weights(folder, balance)["18.weight"]
    assert torch.equal(heads["oversample"], heads["weights"])
    assert torch.equal(heads["sampling"], heads["weights"])
    assert not torch.equal(heads["none"], heads["weights"])


# ---- losses, averaging, precision ----

def test_logit_adjustment_asks_more_of_frequent_classes():
    labels = pd.Series([0] * 90 + [1] * 10)
    logits, target = torch.zeros(1, 2), torch.tensor([1])
    plain, adjusted = (build_criterion(balance, labels, 2)(logits, target).item()
                       for balance in ("none", "logit_adjustment"))
    assert plain == pytest.approx(np.log(2))
    assert adjusted == pytest.approx(-np.log(0.1), abs=1e-6)


def test_an_expected_class_mix_is_what_logits_then_mean(tmp_path):
    """Without information, a network fitted by the loss predicts the mix of the table."""
    (tmp_path / "mix.csv").write_text("latin,share\nb,30\na,10\nunused,5\n")
    mix = read_balance(str(tmp_path / "mix.csv"), ["a", "b"])
    labels = pd.Series([0] * 90 + [1] * 10)
    criterion = build_criterion(mix, labels, 2)
    bias = fit_linear(torch.zeros(100, 1), torch.tensor(labels.to_numpy()), torch.zeros(2, 1),
                      torch.zeros(2), criterion, 0.1)[1]
    assert bias.softmax(0).tolist() == pytest.approx([0.25, 0.75], abs=1e-4)


@pytest.mark.parametrize("rows, fact", [
    ("a,1\n", "no share above 0 for b"), ("a,1\nb,0\n", "no share above 0 for b"),
    ("a,1\nb,many\n", "line 3: the share 'many'"), ("a,1\nb,nan\n", "above 0 for b")])
def test_a_table_of_the_class_mix_names_what_is_wrong(tmp_path, rows, fact):
    (tmp_path / "mix.csv").write_text("latin,share\n" + rows)
    with pytest.raises(InputError, match=fact):
        read_balance(str(tmp_path / "mix.csv"), ["a", "b"])


def test_the_class_mix_is_a_setting_whose_content_counts(folder):
    table = folder / "mix.csv"
    table.write_text("latin,share\n" + "".join(f"{name},1\n" for name in NAMES))
    options = ["--balance", table, "--num_epochs", "1"]
    train.train(settings(folder, *options, "--run", "mix"))
    even = weights(folder, "mix")
    train.train(settings(folder, "--balance", "logit_adjustment", "--num_epochs", "1"))
    assert all(torch.allclose(value.float(), even[key].float(), atol=1e-5)
               for key, value in weights(folder).items())
    table.write_text("latin,share\n" + "".join(f"{name},{i + 1}\n" for i, name
                                               in enumerate(NAMES)))
    with pytest.raises(InputError, match="balance: "):
        train.train(settings(folder, *options, "--run", "mix"))


@pytest.mark.parametrize("model, given, rate", [
    ("mobilenet_v3_large", 0.0, 3e-4), ("resnet18", 0.0, 1e-4), ("resnet18", 0.5, 0.5)])
def test_a_rate_left_open_is_the_networks(model, given, rate):
    s = config.namespace(model=model, backbone_learning_rate=given)
    assert complete(s).backbone_learning_rate == rate


def test_weights_count_rare_classes_more():
    labels = pd.Series([0] * 90 + [1] * 10)
    logits, both = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])
    weighted = build_criterion("weights", labels, 2)(logits, both).item()
    losses = -logits.log_softmax(1)[0]
    assert weighted == pytest.approx((losses[0] * 0.1 + losses[1] * 0.9).item(), abs=1e-6)


def test_label_smoothing_gives_every_class_a_share_of_the_label(folder):
    s = settings(folder, "--label_smoothing", "0.3", "--balance", "none")
    data = train.build_data(s)
    criterion = train.build_run(s, data, *train.build_facts(s, data)).criterion
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    losses = -logits.log_softmax(1)[0]
    expected = 0.7 * losses[1] + 0.1 * losses.sum()
    assert criterion(logits, torch.tensor([1])).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name, cut", [("mixup", False), ("cutmix", True)])
def test_a_batch_is_mixed_as_the_setting_says(name, cut):
    """Each pixel is of one photograph, or all are means of two; the labels follow.

    The shares are of a beta distribution, so that a small setting mixes most batches hardly.
    """
    torch.manual_seed(0)
    images = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
    spread = {}
    for alpha in (0.2, 20.0):
        mix = build_mix(config.namespace(**{"mixup": 0.0, "cutmix": 0.0, name: alpha}), 2)
        mixed, shares = map(torch.cat, zip(*(
            mix(images, torch.tensor([0, 1])) for _ in range(300)), strict=True))
        assert torch.allclose(shares[:, 1], mixed.mean((1, 2, 3)), atol=1e-4)
        inside = (mixed > 0.001) & (mixed < 0.999)
        assert not inside.any() if cut else inside.float().mean() > 0.3
        spread[alpha] = shares.std()
    assert spread[0.2] > 1.5 * spread[20.0]


@pytest.mark.parametrize("able, dtype", [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_is_used_where_the_device_is_made_for_it(folder, monkeypatch, able, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": able}, raising=False)
    model, device, seen = build_model("plain_cnn", 3), torch.device("cpu"), []
    head = model.get_submodule(head_name(model))
    head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    for option in ([], ["--no-bfloat16"]):
        logits = build_forward(settings(folder, *option), model, device)(torch.zeros(2, 3, 32, 32))
        assert logits.dtype == torch.float32
        logits.sum().backward()
    assert seen == [dtype, torch.float32]
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_bfloat16_is_not_used_where_a_cpu_is_slower_with_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    cpu = torch.device("cpu")
    assert trains_in_bfloat16(build_model("resnet18", 3), cpu)
    assert not trains_in_bfloat16(build_model("mobilenet_v3_small", 3), cpu)


# ---- selection ----

def test_clearly_worse_means_a_difference_beyond_its_noise():
    lowest = torch.tensor([0.1, 0.2, 0.3, 0.2])
    assert not clearly_worse(lowest, lowest)
    one_photograph = torch.tensor([0.1, 0.0, 0.0, -0.05])
    assert not clearly_worse(lowest + one_photograph, lowest)
    assert clearly_worse(lowest + torch.tensor([4e3, 0.0, 0.0, -0.1]), lowest)  # but it is huge
    assert clearly_worse(lowest + torch.tensor([0.1, 0.1, 0.05, 0.1]), lowest)


def overconfident(count=60):
    """Return validation batches whose images are logits: sharp, and one in four wrong."""
    torch.manual_seed(0)
    labels = torch.arange(count) % 3
    shown = torch.where(torch.arange(count) % 4 == 0, (labels + 1) % 3, labels)
    return [(12 * torch.nn.functional.one_hot(shown, 3).float()[:, :, None, None], labels)]


def test_epochs_are_selected_by_the_loss_at_the_fitted_temperature():
    """The network is wrong too confidently: 12 nats per mistake, far less at its temperature."""
    metrics, losses, _ = train.validate(torch.nn.Flatten(), overconfident(), flip_tta=False)
    (logits, labels), = overconfident()
    grid = torch.linspace(1, 20, 1901)
    logits = logits.flatten(1).double()
    by_temperature = torch.stack([cross_entropy(logits / t, labels) for t in grid])
    assert metrics["loss"] == pytest.approx(3.0, abs=0.1)
    assert metrics["calibrated_loss"] == pytest.approx(losses.mean().item())
    assert metrics["calibrated_loss"] < 1.2 * by_temperature.min()
    at_temperature = cross_entropy(logits / metrics["temperature"], labels)
    assert metrics["calibrated_loss"] == pytest.approx(at_temperature.item())


@pytest.mark.parametrize("flip_tta", [True, False])
def test_validation_averages_each_photograph_with_its_mirror_image(flip_tta):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
    images, labels = torch.randn(20, 3, 2, 2), torch.randint(0, 3, (20,))
    metrics, _, _ = train.validate(model, [(images, labels)], flip_tta)
    with torch.no_grad():
        plain = model(images)
        logits = (plain + model(images.flip(3))) / 2 if flip_tta else plain
    loss = cross_entropy(logits.double(), labels).item()
    assert metrics["loss"] == pytest.approx(loss, abs=1e-6)


def test_a_run_validates_with_test_time_augmentation(folder):
    """The metrics of an epoch are those of its weights with both views, as the checkpoint says."""
    options = ["--initial_weights", write_weights(folder), "--num_epochs", "1",
               "--learning_rate", "1e-2"]
    for flag, flip_tta in (("--flip_tta", True), ("--no-flip_tta", False)):
        s = settings(folder, *options, flag, "--run", f"run{flip_tta}", "--no-linear_probe")
        found = train.train(s)
        data = train.build_data(s)
        facts, last = train.build_facts(s, data)
        run = train.build_run(s, data, facts, last)
        losses = {}
        for both in (True, False):
            val_batches = train.run_batches(run, run.val_loader, "validation")
            losses[both] = train.validate(run.model, val_batches, both)[0]["loss"]
        assert losses[True] != losses[False]
        assert found["loss"] == losses[flip_tta]
        assert last["flip_tta"] is flip_tta
