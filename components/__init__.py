"""Steps of the pipeline: each names its inputs and outputs and calls mtlrank. All of them run on one image."""
