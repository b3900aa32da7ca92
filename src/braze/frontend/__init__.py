"""The front doors: from what people call to functional ATen graphs, simplified and handed to a compiler."""
