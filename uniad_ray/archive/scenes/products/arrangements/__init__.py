"""Layouts of products: how parts lie, by which rules, and how an anomaly breaks one of them."""
