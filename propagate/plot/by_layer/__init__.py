"""How values are distributed in each layer: what is seen of a record's histograms at all layers."""
