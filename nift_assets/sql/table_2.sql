{{ config(group='scores') }}

-- Table 2 of the paper: MT-Bench of what was trained on ten thousand completions of a teacher, by backbone and
-- teacher.

select
    backbone, module, teacher, name, training_set,
    score, low, high, paper, quoted_from, difference, outside, expected, missing, complete, gain, p,
    p_corrected, judge, note
from {{ ref('score_cells') }}
where "table" = 'table_2'
order by place
