"""Times packing against Hugging Face's collator that joins samples without padding.

    python benchmarks/packing.py --json packing.json

Both get the same segments. The peer writes ids, positions, labels and segment numbers of one long
row; ours finds rows of 128 for them, and writes space-time coordinates, spans, pairs, patches and
the weights of the loss beside. Needs `pip install "taichu[benchmark]"`.
"""

from harness import interleaved, machine, options, use_threads, write_ratios
from workload import layouts_of, network_of


def main():
    chosen = options(__doc__, runs=30).parse_args()
    use_threads()
    from transformers import DataCollatorWithFlattening

    from taichu.data.layout import lay_out
    from taichu.data.packing import pack

    vocabulary = network_of("nano")[1]
    drawn, shape = layouts_of("nano")
    laid = [lay_out(s, vocabulary) for layout in drawn[0] for s in layout.segments]
    features = [{"input_ids": t.ids.tolist(), "labels": t.target.tolist()} for t in laid]
    tokens = sum(len(t.ids) for t in laid)
    collator = DataCollatorWithFlattening(return_tensors="np", return_seq_idx=True)
    ways = {
        "ours": lambda: pack(drawn[0], shape, vocabulary),
        "collator": lambda: collator(features),
    }
    median = interleaved(ways, chosen.runs)
    print(f"{machine()}; {tokens} tokens of {len(laid)} segments, {chosen.runs} turns a way")
    for way, seconds in median.items():
        print(f"{way:>8} {tokens / seconds / 1e3:8.0f} thousand tokens a second")
    ratios = {"packing": round(median["ours"] / median["collator"], 3)}
    print(f"ours / collator: {ratios['packing']:.2f}")
    write_ratios(chosen.json, ratios, chosen.runs)


if __name__ == "__main__":
    main()
