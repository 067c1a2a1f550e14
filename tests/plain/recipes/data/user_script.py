def text(row):
    return row["question"] + row["answer"]
