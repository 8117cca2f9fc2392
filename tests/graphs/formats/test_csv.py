"""Tables of edges as text: labels as written, and what stays is byte for byte what it was."""

import gzip

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from graphsparse.errors import DataError
from graphsparse.graphs.formats import open_file


def read(folder, content, name="in.csv", **options):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_file(path, **options)


def after(file, keep, folder, name="out.csv"):
    file.write(np.array(keep, bool), folder / name)
    return (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("rows", "nodes"),
    [
        ("01,1\n1,1\n", 2),
        ("1E2,100\n", 2),
        ("1,x\n1,2\n2,y\n", 4),
        ("NA,null\nnan,None\nNaN,\\N\n", 6),
        ("1.0,1\n-0,0\n+1,1\n", 5),
        ("1_0,10\n", 2),
        ("\u0661,1\n", 2),  # an Arabic digit is no spelling of 1
        ("9007199254740992,9007199254740993\n", 2),
        ("18446744073709551616,18446744073709551617\n", 2),
        ('"a",a\n', 1),
        (" a,a\n", 2),
        ("True,true\n", 2),
        ("é,e\u0301\n", 2),
        ("-9223372036854775808,1\n", 2),
    ],
)
def test_labels_compare_as_written(tmp_path, rows, nodes):
    assert read(tmp_path, f"src,dst\n{rows}").edges.num_nodes == nodes


def test_labels_that_differ_by_blanks_are_told(tmp_path):
    assert read(tmp_path, "src,dst\na, a\nb,c\n").note.startswith("1 labels differ from others by blanks")
    assert read(tmp_path, "src,dst\na,b\n").note == ""


def test_whole_numbers_are_named_by_value_and_text_by_its_hash(tmp_path):
    from graphsparse.graphs.labels import label_names

    numbers = read(tmp_path, "src,dst\n7,-3\n3,7\n")
    assert numbers.edges.names.tolist() == label_names([7, 3, -3]).tolist()  # tails first, as they appear
    words = read(tmp_path, "src,dst\n7,a\n3,7\n")
    assert words.edges.names.tolist() == label_names(["7", "3", "a"]).tolist()


def test_a_long_list_is_one_graph(tmp_path):
    """Past a reader's chunk the kinds of labels used to change: 300,001 nodes became 337,858."""
    n = 300_000
    arcs = [(i, i + 1) for i in range(n)]
    text = "src,dst\n" + "".join(f"{u},{v}\n{v},{u}\n" for u, v in arcs) + "0,x\nx,0\n"
    edges = read(tmp_path, text).edges
    assert edges.num_nodes == n + 2
    assert edges.undirected


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("src,dst,w\n1,2,3\n", ","),
        ("src\tdst\n1\t2\n", "\\t"),
        ("src;dst;x,y\n1;2;a,b\n", ";"),
        ("src dst\n1 2\n", " "),
        ("src|dst\n1|2\n", "|"),
        ("w,dst,src\n9,2,1\n", "other order"),
        ("Target,Source\n2,1\n", "source and target"),
        ('" src", dst \n1,2\n', "blanks and quotes"),
        ("\ufeffsrc,dst\n1,2\n", "a mark of the byte order"),
        ("# made, by\n\n#src,dst\nsrc,dst\n1,2\n", "comments above"),
        ("src,dst\r\n1,2\r\n", "CRLF"),
        ("src,dst\r1,2\r", "CR"),
        ("src,dst\n1,2", "no last newline"),
        ("src,dst\n\n1,2\n   \n# comment\n", "blank lines and a comment"),
    ],
)
def test_headers_and_delimiters(tmp_path, content, names):
    edges = read(tmp_path, content).edges
    assert edges.names.tolist() == [1, 2], names
    assert edges.edge_index.tolist() == [[0], [1]]


AWKWARD = (
    '\ufeff# a "comment\nsrc, dst ,note,note\r\n'
    '1,2,"x, ""y""\nsecond line",NA\r\n'
    "\n"
    "# one more\n"
    '"3","#4",00123,1.10  \n'
    '#5,6,"\n#7,8,9,9\n",null\n'.replace("#5", '"#5"')
    + "6,1,,1999"
)


def test_kept_lines_stay_byte_for_byte(tmp_path):
    file = read(tmp_path, AWKWARD)
    lines = AWKWARD.split("\n")
    assert file.edges.num_edges == 4
    assert [file.place(i) for i in range(4)] == ["line 3", "line 7", "line 8", "line 11"]
    assert after(file, [1, 1, 1, 1], tmp_path).decode() == AWKWARD
    assert after(file, [0, 1, 0, 1], tmp_path).decode() == "\n".join([*lines[:2], *lines[4:7], *lines[10:]])
    assert after(file, [1, 0, 0, 0], tmp_path).decode() == "\n".join(lines[:6]) + "\n"


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_cells_are_not_rewritten(tmp_path, ending):
    rows = ["src,dst,a", "1,2,NA", "2,3,null", "3,4,00123", "4,5,1.10", "5,6,1999", "6,7,", "7,8,1e5  "]
    content = ending.join(rows).encode()
    file = read(tmp_path, content)
    assert after(file, [True] * 7, tmp_path) == content
    assert after(file, [1, 1, 0, 1, 0, 1, 0], tmp_path) == "".join(rows[i] + ending for i in (0, 1, 2, 4, 6)).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("src,dst\n1,2\n3,4,5\n", "line 3 has 3 cells, and the header has 2"),
        ("src,dst,w\n1,2,3\n3,4\n", "line 3 has 2 cells"),
        ("src,dst\n1,2\n3\n", "line 3 has 1 cells"),
        ("src,dst\n1,2\n3,\n", "line 3 lacks an end"),
        ('src,dst\n"",2\n', "line 2 lacks an end"),
        ("a,b\n1,2\n", "no column 'src'.*given by src= and dst="),
        ("src,to\n1,2\n", "no column 'dst'"),
        ("src,dst,SRC\n1,2,3\n", "two columns are named 'src'"),
        ("", "empty"),
        ("\n# nothing\n", "empty"),
        ("src,dst\n1,2\n1,\0\n", "line 3 holds a NUL byte"),
        ("src,dst\n1,2\nü,1\n".encode("latin-1"), "line 3 is not in UTF-8"),
        ("src,dst\n1,2\n".encode("utf-16"), "NUL byte"),
        ('src,dst\n1,2\n"3,4\n5,6\n', "line 3 cannot be split into cells: a quoted cell that begins here does not end"),
        ('src,dst\n"1"x,2\n', "line 2 cannot be split"),
        ("src,dst\n1\r3,2\n", "line 2 cannot be split into cells: a carriage return"),
        ("src,dst\n1,2\n#3,4\n", "line 3 begins with # and has as many cells as the header"),
    ],
)
def test_what_is_no_table_is_told_with_its_line(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "in.csv") in str(caught.value)


def test_weights(tmp_path):
    file = read(tmp_path, "src,dst,weight,cost\n1,2,0.5,9\n2,3,x,8\n")
    assert file.weights == "the column 'weight'"
    assert file.edges.weight.isnan().tolist() == [False, True]  # an error where weights are used
    assert read(tmp_path, "src,dst,weight,cost\n1,2,0.5,9\n", weight="cost").edges.weight.tolist() == [9.0]
    assert read(tmp_path, "src,dst,cost\n1,2,9\n").edges.weight is None
    with pytest.raises(DataError, match="no column 'price'"):
        read(tmp_path, "src,dst,cost\n1,2,9\n", weight="price")
    for name in ("Weight", "WEIGHT", "Edge_Weight", "cost,Weight"):
        file = read(tmp_path, f"Source,Target,{name}\n1,2,0.5{',3' * name.count(',')}\n")
        assert file.weights == f"the column {name.split(',')[-1]!r}"
    assert read(tmp_path, "src,dst,Weight,weight\n1,2,9,0.5\n").edges.weight.tolist() == [0.5]
    for header in ("weight,weight", "weight,edge_weight", "Weight,WEIGHT"):
        with pytest.raises(DataError, match="say which"):
            read(tmp_path, f"src,dst,{header}\n1,2,3,4\n")


def test_a_header_that_comes_again_is_told(tmp_path):
    """So look tables that were put together header and all."""
    said = "line 4 is the header again, and counts as an edge"
    file = read(tmp_path, "src,dst\n1,2\n\nsrc,dst\n2,3\n")
    assert (file.note, file.edges.num_edges) == (said, 3)
    for other in ("src,dst\n1,2\nsrc,3\n", "src,dst\ndst,src\n", "source,target\nsrc,dst\n"):
        assert not read(tmp_path, other).note


@pytest.mark.parametrize("cell", [" ", '" "', "\t", "\u00a0"])
def test_an_end_of_blanks_is_none(tmp_path, cell):
    for table in (f"src,dst\n1,2\n{cell},3\n", f'src,dst\n1,2\n3,{cell}\n"a",b\n'):
        with pytest.raises(DataError, match="line 3 lacks an end"):
            read(tmp_path, table)


def test_only_a_header_is_a_graph_without_edges(tmp_path):
    file = read(tmp_path, "src,dst")
    assert (file.edges.num_nodes, file.edges.num_edges) == (0, 0)
    assert after(file, [], tmp_path) == b"src,dst"


def test_long_cells(tmp_path):
    content = f'src,dst,x\n1,2,"{"y" * 200_000}"\n'
    assert read(tmp_path, content).edges.num_edges == 1


def test_gzipped(tmp_path):
    content = b"src,dst\n1,2\n2,3\n"
    file = read(tmp_path, gzip.compress(content), "in.csv.gz")
    assert gzip.decompress(after(file, [0, 1], tmp_path, "out.csv.gz")) == b"src,dst\n2,3\n"
    for damaged in (content, gzip.compress(content)[:-5]):
        with pytest.raises(DataError, match="gzip"):
            read(tmp_path, damaged, "in.csv.gz")


@pytest.mark.parametrize("size", [2, 3])
def test_a_small_gzip_that_unpacks_into_much_is_not_unpacked(tmp_path, monkeypatch, size):
    from graphsparse import untrusted

    monkeypatch.setattr(untrusted, "_LARGE", 1 << 16)
    with pytest.raises(DataError, match="unpack into more than"):
        read(tmp_path, gzip.compress(b"src,dst\n" + b"1,2\n" * (1 << (18 + size))), "in.csv.gz")


CELL = st.text(st.sampled_from('ab1,"\n\r ;\t#é'), max_size=4)


def quoted(cell, always, delimiter):
    return f'"{cell.replace(chr(34), chr(34) * 2)}"' if always or {*cell} & {*'"\n\r#', delimiter} else cell


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(CELL.filter(str.strip), CELL, CELL.filter(str.strip)), max_size=8),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
    st.randoms(use_true_random=False),
)
@example([("a", "", "c")], ",", "\n", False, False, None)
def test_random_tables_come_back(tmp_path_factory, rows, delimiter, ending, always, last, random):
    """All edges: byte for byte; fewer: the kept records in their order; and the nodes are the texts of the cells."""
    folder = tmp_path_factory.mktemp("tables")
    records = [delimiter.join(quoted(cell, always, delimiter) for cell in row) for row in rows]
    header = delimiter.join(["dst", "note", "src"])
    text = ending.join([header, *records]) + ("" if last else ending)
    file = read(folder, text)
    assert file.edges.num_edges == len(rows)
    assert file.edges.num_nodes == len({row[0] for row in rows} | {row[2] for row in rows})
    keep = [True if random is None else random.random() < 0.5 for _ in rows]
    assert after(file, [True] * len(rows), folder).decode() == text
    kept = [record for record, stays in zip(records, keep, strict=True) if stays]
    assert after(file, keep, folder).decode().removesuffix(ending) == ending.join([header, *kept]).removesuffix(ending)
