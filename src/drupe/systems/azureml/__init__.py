"""Steps as jobs on an AzureML compute."""
