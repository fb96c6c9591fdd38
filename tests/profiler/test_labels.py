"""Labels: layers stay compressed, and what is united goes together."""

import torch

from profiler.labels import Labels, ParameterDimension, along, compact, compress, varying


def test_a_layer_varies_only_where_its_labels_differ() -> None:
    layer = along(torch.arange(1, 5), 1, (2, 4, 3))
    assert layer.shape == (2, 4, 3)
    assert varying(layer) == (1,)
    assert compact(layer).shape == (1, 4, 1)


def test_a_dense_layer_is_compressed_again() -> None:
    layer = along(torch.arange(1, 5), 1, (2, 4, 3))
    assert varying(compress(layer.contiguous())) == (1,)
    assert torch.equal(compress(layer.contiguous()), layer)


def test_united_labels_have_one_root_and_nothing_unites_with_zero() -> None:
    labels = Labels()
    one, other = labels.fresh(3), labels.fresh(3)
    labels.unite(one, torch.where(torch.arange(3) == 1, 0, other))
    roots = labels.roots()
    assert roots[one[0]] == roots[other[0]]
    assert roots[one[2]] == roots[other[2]]
    assert len(set(roots.tolist())) == 5
    assert roots[0] not in roots[1:]


def test_tying_unites_along_the_given_dimensions_only() -> None:
    labels = Labels()
    layer = labels.fresh(6).reshape(2, 3)
    tied = labels.tie(layer, [0])
    roots = labels.roots()[layer.numpy()]
    assert (roots[0] == roots[1]).all()
    assert len(set(roots[0].tolist())) == 3
    assert varying(tied) == (1,)


def test_a_parameter_keeps_its_labels_and_they_lead_back_to_it() -> None:
    labels = Labels()
    labels.of_parameter("a.weight", (4, 1, 3))
    first, second = labels.of_parameter("b.weight", (5, 2))
    assert torch.equal(first, labels.of_parameter("b.weight", (5, 2))[0])
    assert labels.keys_of(second) == {ParameterDimension("b.weight", 1)}
    assert labels.keys_of(torch.cat([first[:, 0], second[0]])) == {
        ParameterDimension("b.weight", 0),
        ParameterDimension("b.weight", 1),
    }
    assert labels.keys_of(labels.fresh(2)) == set()


def test_tying_passes_over_what_carries_no_label() -> None:
    labels = Labels()
    layer = torch.where(torch.arange(6).reshape(2, 3) == 0, 0, labels.fresh(6).reshape(2, 3))
    tied = labels.tie(layer, [0])
    roots = labels.roots()[tied.numpy()]
    assert (roots[0] == roots[1]).all()
    assert len(set(roots[0].tolist())) == 3


def test_created_labels_are_known_as_such_unless_others_stand_among_them() -> None:
    labels = Labels()
    own, created = labels.fresh(3), labels.created(3)
    assert labels.is_created(created)
    assert labels.is_created(torch.zeros(2, dtype=torch.int64))
    assert not labels.is_created(own)
    assert not labels.is_created(torch.cat([own, created]))


def test_a_crossing_is_settled_by_what_else_is_asked() -> None:
    for dimension, frozen in ((1, True), (0, False)):
        labels = Labels()
        large, small = labels.fresh(6).reshape(2, 3), labels.fresh(3).reshape(1, 3)
        labels.cross(large, small, "stays")
        labels.tie(large, [dimension])
        labels.settle_crossings()
        assert bool(labels.frozen) == frozen
        assert (labels.roots()[large.numpy()] == labels.roots()[small.numpy()]).all() != frozen


def test_an_open_crossing_keeps_the_longest_dimension() -> None:
    for shape, frozen in (((2, 3), False), ((4, 3), True)):
        labels = Labels()
        large, small = labels.fresh(shape[0] * shape[1]).reshape(shape), labels.fresh(3).reshape(1, 3)
        labels.cross(large, small, "stays")
        labels.settle_crossings()
        assert bool(labels.frozen) == frozen
        assert len(set(labels.roots()[large.numpy()].reshape(-1).tolist())) == max(shape)


def test_a_tensor_without_elements_has_no_labels_along_any_dimension() -> None:
    labels = Labels()
    empty = along(labels.fresh(3), 1, (2, 3)).narrow(0, 0, 0)
    assert labels.only_along(empty, 1).tolist() == [0, 0, 0]
