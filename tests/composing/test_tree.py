from mtlrank.composing.tree import leaves, nodes

CONFIG = {"a": {"b": 1, "c": {}}, "d": [{"e": "x"}, 2, []]}


def test_nodes_are_groups_before_their_members_and_lists_as_one_value():
    assert list(nodes(CONFIG)) == [
        ("a", {"b": 1, "c": {}}),
        ("a.b", 1),
        ("a.c", {}),
        ("d", [{"e": "x"}, 2, []]),
    ]
    assert list(nodes(3)) == []


def test_leaves_are_plain_values_also_in_lists_and_what_is_empty():
    assert list(leaves(CONFIG)) == [
        (("a", "b"), 1),
        (("a", "c"), {}),
        (("d", "e"), "x"),
        (("d",), 2),
        (("d",), []),
    ]
    assert list(leaves(3)) == [((), 3)]
