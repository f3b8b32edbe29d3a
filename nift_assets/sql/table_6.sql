{{ config(group='scores') }}

-- Table 6 of the paper: Arena-Hard by teacher and by number of pairs.

select
    backbone, teacher, pairs, name, training_set,
    score, low, high, paper, quoted_from, difference, outside, expected, missing, complete, gain, p,
    p_corrected, judge, note
from {{ ref('score_cells') }}
where "table" = 'table_6'
order by place
