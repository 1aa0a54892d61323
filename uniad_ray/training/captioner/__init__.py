"""Training of the demonstration captioner: a tiny Qwen2-VL that answers the structured prompt about trays.

`trays` draws the examples, `processing` builds tokenizer and image processor, `network` the model, `loop` trains it.
"""
