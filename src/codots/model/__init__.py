"""Language models: loading, chat templates, devices, attention over rows of unequal length."""
